"""Which examples of arrays are for training, for the test and for validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metapl.data import groups as together
from metapl.data.formats.npy import Arrays
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
    test = test or _some(own, settled.test)
    own = _some(own, settled.train)
    more, left = _without_copies(
        found.get("x_unlabelled", own.x[:0]), [test, *([validation] if validation else [])], way
    )
    parts = [own, *([validation] if validation else []), Part(more, torch.full((len(more),), -1))]
    pool = Part(np.concatenate([part.x for part in parts]), torch.cat([part.y for part in parts]))
    positions = len(own.y) + torch.arange(len(validation.y)) if validation else None
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


def _some(part: Part, index: Tensor) -> Part:
    return Part(part.x[index.numpy()], part.y[index])


def _digests(x: Sequence[np.ndarray], way: str) -> list[bytes | None]:
    return [None if way == "keep" else digest for one in x for digest in together.digests(one)]


def _marks(found: Arrays, way: str) -> copies.Marks:
    x = found["x"]
    group = together.numbered(found["groups"].tolist()) if "groups" in found else None
    return copies.Marks(range(len(x)), _digests([x], way) if way != "keep" else [None] * len(x), group)


def _without_copies(more: np.ndarray, known: Sequence[Part], way: str) -> tuple[np.ndarray, list[Note]]:
    if way == "keep" or not len(more):
        return more, []
    copied = together.shared(together.digests(more), [one for part in known for one in together.digests(part.x)])
    if not copied.any():
        return more, []
    text = f"{int(copied.sum()):,} examples without labels that are in the test or validation set too"
    return more[~copied.numpy()], [Note("left out", text)]
