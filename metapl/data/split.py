"""Which examples are labelled, unlabelled and held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key
from metapl.data import groups as together
from metapl.files import schema
from metapl.registry.errors import InputError

MOST = 0.5
"""Of the known examples of a class, what the validation part takes at most, if nobody says how large it is to be."""


class Split(NamedTuple):
    """Indices into the training pool, int64, sorted. The test set is apart from all of them."""

    labelled: Tensor
    unlabelled: Tensor
    validation: Tensor


def _quotas(available: Tensor, count: int, balanced: bool, key: Key) -> Tensor:
    """How many of each class, `[classes]`: equally many, or in the proportions of what is there, but one at least."""
    classes = len(available)
    if balanced:
        share = torch.full((classes,), count / classes, dtype=torch.float64)
    else:
        share = count * available.double() / available.sum()
        share = share.clamp(min=1.0) if count >= classes else share
    quota = share.floor().long()
    while quota.sum() > count:  # the classes that were lifted to one are paid for by the largest
        quota[quota.argmax()] -= 1
    left = count - int(quota.sum())
    # What is left over goes to the largest remainders; equal ones, as in a balanced split, are drawn by the key.
    order = rng.permutation(key, classes)
    order = order[torch.argsort((share - quota)[order], descending=True, stable=True)]
    quota[order[:left]] += 1
    return quota


def _draw(
    y: Tensor, candidates: Tensor, count: int, names: Sequence[str], balanced: bool, key: Key, most: float = 1.0
) -> Tensor:
    """`count` of the candidates, class by class; fewer where a class has to give more than the share `most` of it."""
    order_key, extra_key = rng.split(key, 2)
    available = y[candidates].bincount(minlength=len(names))
    quota = _quotas(available, count, balanced, extra_key)
    if most < 1:
        quota = torch.minimum(quota, (most * available).long())
    shuffled = candidates[rng.permutation(order_key, len(candidates))]
    chosen = []
    for label, name in enumerate(names):
        if available[label] < quota[label]:
            raise InputError(
                f"of class {name!r} there are {available[label]} to choose from, and {quota[label]} are wanted: "
                f"ask for at most {int(available.min()) * len(names)} in all"
                + (", or give --no-balanced" if balanced else "")
            )
        chosen.append(shuffled[y[shuffled] == label][: int(quota[label])])
    return torch.cat(chosen).sort().values


def _without(candidates: Tensor, taken: Tensor) -> Tensor:
    return candidates[~torch.isin(candidates, taken)]


class Wanted(NamedTuple):
    """What a split is asked for."""

    labels: int = 0
    """Examples that keep their label, in all. 0: one a class, or all that there are where some examples have none."""
    validation: int = -1
    """Labelled examples held out, for choosing hyperparameters and nothing else. −1: a fifth, at most 200, and of no
    class more than the share `MOST`."""
    balanced: bool = True
    """Equally many of each class; otherwise in the proportions of the labelled examples, one of each at least."""
    labelled_in_unlabelled: bool = True
    """Whether the labelled examples are also in the unlabelled set, as in the released code of Meta Pseudo Labels."""
    given: Tensor | None = None
    """Positions in the pool of a validation set that came with the data: all of it, or what `validation` takes of it,
    is the validation set, and no more of it is learnt from unless `validation` is 0."""
    groups: Tensor | None = None
    """`[examples]`: nobody whose group has one in the validation set is learnt from; see `metapl.data.groups`."""


def split(y: Tensor, names: Sequence[str], wanted: Wanted, key: Key) -> Split:
    """A split of the training pool, determined by the key.

    Args:
        y: class indices `[examples]` of the pool; −1 where nobody knows.
        names: of the classes.
        wanted: how many of what.
        key: randomness.

    Raises:
        InputError: a class without a labelled example, fewer labels than classes, or more than there are.
    """
    classes, known = len(names), torch.arange(len(y))[y >= 0]
    available = y[known].bincount(minlength=classes)
    if not available.all():
        name = names[int(available.argmin())]
        raise InputError(f"class {name!r} has no labelled example in the training pool: label one, or leave it out")
    validation_key, labelled_key = rng.split(key, 2)
    if wanted.given is not None and wanted.validation:
        apart = wanted.given
        held_out = _of_given(y, names, wanted, validation_key)
    else:
        validation = _validation(wanted.validation, len(known), classes)
        most = 1.0 if wanted.validation >= 0 else MOST
        apart = held_out = _draw(y, known, validation, names, wanted.balanced, validation_key, most)
        if wanted.groups is not None and validation:
            quota = dict(enumerate(y[held_out].bincount(minlength=classes).tolist()))
            order = known[rng.permutation(rng.fold_in(validation_key, 1), len(known))]
            taken = together.take(y, quota, order, wanted.groups)
            apart, held_out = taken.nonzero()[:, 0], (taken & (y >= 0)).nonzero()[:, 0]
    free, rest = _without(known, apart), _without(torch.arange(len(y)), apart)
    every = not wanted.labels and len(free) < len(rest)
    labels = len(free) if every else wanted.labels or classes
    _require_enough(labels, len(known) - len(free), len(known), classes)
    labelled = free if every else _draw(y, free, labels, names, wanted.balanced, labelled_key)
    missing = [name for label, name in enumerate(names) if not (y[labelled] == label).any()]
    if missing:
        raise InputError(f"class {missing[0]!r} has no labelled example left: lower --validation or label more")
    return Split(labelled, rest if wanted.labelled_in_unlabelled else _without(rest, labelled), held_out)


def _of_given(y: Tensor, names: Sequence[str], wanted: Wanted, key: Key) -> Tensor:
    """The validation set out of the one that came with the data."""
    given = wanted.given if wanted.given is not None else torch.zeros(0, dtype=torch.int64)
    if wanted.validation < 0:
        return given
    if not len(names) <= wanted.validation <= len(given):
        raise InputError(
            f"--validation {wanted.validation}: the data has a validation set of {len(given)}: give {len(names)} to "
            f"{len(given)} to take some of it, or 0 to learn from it"
        )
    return _draw(y, given, wanted.validation, names, wanted.balanced, key)


def _validation(wanted: int, known: int, classes: int) -> int:
    if wanted >= 0:
        if wanted and wanted < classes:
            raise InputError(f"--validation {wanted} leaves a class out: give 0 or at least {classes}")
        if wanted + classes > known:
            raise InputError(f"--validation {wanted} leaves too few of the {known} labelled examples: lower it")
        return wanted
    fifth = min(200, known // 5)
    return fifth if fifth >= classes else 0


def _require_enough(labels: int, validation: int, known: int, classes: int) -> None:
    if labels < classes:
        raise InputError(f"--labels {labels} leaves a class without an example: give at least {classes}, one a class")
    if labels + validation > known:
        raise InputError(
            f"--labels {labels} and --validation {validation} are more than the {known} labelled training examples: "
            f"give at most {known - validation} labels"
        )


def to_json(split: Split) -> dict[str, Any]:
    """A split as JSON: labelled and validation as indices, the unlabelled ones as ranges with both ends."""
    ends = torch.nonzero(split.unlabelled.diff() != 1).flatten()
    first = (
        split.unlabelled[torch.cat([torch.zeros(1, dtype=torch.int64), ends + 1])] if len(split.unlabelled) else ends
    )
    last = split.unlabelled[torch.cat([ends, torch.tensor([len(split.unlabelled) - 1])])] if len(first) else ends
    ranges = torch.stack([first, last], 1).tolist()
    return {"labelled": split.labelled.tolist(), "unlabelled": ranges, "validation": split.validation.tolist()}


def from_json(found: Any, y: Tensor, where: str) -> Split:
    """What `to_json` made, for a pool with class indices `y`, −1 where nobody knows; `where` says where it stands.

    Nothing is made of a range before it is known to fit the pool.

    Raises:
        InputError: it is something else or of another pool, an index is in a part twice or in two parts that must be
            apart, or a part that is learnt from or measured on has examples whose class nobody knows.
    """
    index = schema.whole(0, len(y) - 1)
    indices, pair = schema.listed(index, 0, len(y)), schema.listed(index, 2, 2)
    keys = {"labelled": indices, "unlabelled": schema.listed(pair, 0, len(y)), "validation": indices}
    read = schema.table(keys)(found, where)
    labelled, validation = (torch.tensor(read[name], dtype=torch.int64) for name in ("labelled", "validation"))
    unlabelled = _expanded(read["unlabelled"], len(y), f"{where}: unlabelled")
    parts = Split(labelled, unlabelled, validation)
    for name, part in parts._asdict().items():
        if len(part.unique()) < len(part):
            raise InputError(f"{where}: {name} has an example twice")
    for name in ("labelled", "unlabelled"):
        if torch.isin(validation, getattr(parts, name)).any():
            raise InputError(f"{where}: validation and {name} share examples")
    for name in ("labelled", "validation"):
        if (y[getattr(parts, name)] < 0).any():
            raise InputError(f"{where}: {name} has an example whose class nobody knows")
    if not len(labelled):
        raise InputError(f"{where}: labelled is empty")
    return parts


def _expanded(ranges: list[list[int]], examples: int, where: str) -> Tensor:
    if any(last < first for first, last in ranges):
        raise InputError(f"{where} has a range that ends before it begins")
    if sum(last - first + 1 for first, last in ranges) > examples:
        raise InputError(f"{where} has more than the {examples} training examples")
    return torch.cat([torch.zeros(0, dtype=torch.int64), *(torch.arange(first, last + 1) for first, last in ranges)])


SAME = "name the split.json of a run on the same data"
"""The remedy where a split does not fit the data."""


def read(path: Path, y: Tensor) -> Split:
    """A split that a run saved, for a training pool with these class indices, −1 where nobody knows.

    Raises:
        InputError: it cannot be read, is no split, or belongs to other data.
    """
    found = schema.parse(schema.load_text(path, SAME), str(path), SAME)
    try:
        return from_json(found, y.cpu(), str(path))
    except InputError as error:
        raise InputError(f"{error}: {SAME}", *error.fields) from None
