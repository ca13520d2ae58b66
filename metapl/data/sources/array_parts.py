"""Which examples of arrays are for training, for the test and for validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metapl.data import groups as together
from metapl.data.formats.npy import Arrays, slices
from metapl.data.notes import Note
from metapl.data.sources import copies
from metapl.data.sources.array_labels import Labels, indices
from metapl.registry.errors import InputError


class Part(NamedTuple):
    """Examples as they are in the file, and their class indices, −1 where nobody knows."""

    x: np.ndarray
    y: Tensor


class Divided(NamedTuple):
    """The parts of some arrays."""

    pool: Part
    """The training examples, then those of the validation set, then those without labels."""
    test: Part
    validation: Tensor | None
    """Positions in the pool; None where there is no validation set."""
    groups: Tensor | None
    """Of the pool; None where none are known."""
    notes: list[Note]


def divide(found: Arrays, labels: Labels, share: float, way: str, where: str) -> Divided:
    """The parts of arrays; without a test set the validation set is it, or else a share of every class.

    Args:
        found: the arrays.
        labels: what their labels mean.
        share: of every class.
        way: what is done about copies, see `metapl.data.sources.copies.WAYS`.
        where: they are from, for errors.

    Raises:
        InputError: labels that are none, a test example without a label, and what `hold_out` refuses.
    """
    own = Part(found["x"], indices(found["y"], labels, f"{where}: y"))
    test, validation = (_given(found, part, labels, where) for part in ("test", "validation"))
    notes = []
    if test is None and validation is not None:
        notes.append(Note("test", "the validation arrays are the test set, since there is no other"))
        test, validation = validation, None
    given = [part.x for part in (test, validation) if part is not None]
    settled = copies.apart(own.y, _marks(found, way), _digests(given, way) if given else None, share, way)
    test = _gathered([_some(own, settled.test) if test is None else _all(test)])
    known = [test, *([validation] if validation else [])]
    more, left = _without_copies(found.get("x_unlabelled", own.x[:0]), known, way)
    pool = _gathered([_some(own, settled.train), *map(_all, [validation] if validation else []), more])
    positions = len(settled.train) + torch.arange(len(validation.y)) if validation else None
    groups = together.extended(settled.groups, len(pool.y))
    return Divided(pool, test, positions, groups, [*notes, *settled.notes, *left])


def _given(found: Arrays, part: str, labels: Labels, where: str) -> Part | None:
    name = f"y_{part}"
    if name not in found:
        return None
    y = indices(found[name], labels, f"{where}: {name}")
    if (y < 0).any():
        raise InputError(
            f"{where}: {name} has labels that nobody knows: leave these examples out, or give marker= with nothing "
            "after it if they are a class"
        )
    return Part(found[f"x_{part}"], y)


class _Some(NamedTuple):
    """Some examples of a part, which is left where it is."""

    part: Part
    places: np.ndarray


def _some(part: Part, index: Tensor) -> _Some:
    return _Some(part, index.numpy())


def _all(part: Part) -> _Some:
    return _Some(part, np.arange(len(part.x)))


def _gathered(parts: Sequence[_Some]) -> Part:
    """The examples of all parts, one after another: the one copy that is made of them, a few at a time."""
    arrays = [one.part.x for one in parts]
    x = np.empty((sum(len(one.places) for one in parts), *arrays[0].shape[1:]), np.result_type(*arrays))
    end = 0
    for part, index in parts:
        begin, end = end, end + len(index)
        own = x[begin:end]
        for some in slices(own):
            own[some] = part.x[index[some]]
    return Part(x, torch.cat([part.y[torch.from_numpy(index)] for part, index in parts]))


def _digests(x: Sequence[np.ndarray], way: str) -> list[bytes | None]:
    return [None if way == "keep" else digest for one in x for digest in together.digests(one)]


def _marks(found: Arrays, way: str) -> copies.Marks:
    x = found["x"]
    group = together.numbered(found["groups"].tolist()) if "groups" in found else None
    return copies.Marks(range(len(x)), _digests([x], way) if way != "keep" else [None] * len(x), group)


def _without_copies(x: np.ndarray, known: Sequence[Part], way: str) -> tuple[_Some, list[Note]]:
    more = Part(x, torch.full((len(x),), -1))
    if way == "keep" or not len(x):
        return _all(more), []
    copied = together.shared(together.digests(x), [one for part in known for one in together.digests(part.x)])
    if not copied.any():
        return _all(more), []
    text = f"{int(copied.sum()):,} examples without labels that are in the test or validation set too"
    return _some(more, (~copied).nonzero()[:, 0]), [Note("left out", text)]
