"""Which examples are labelled, unlabelled and held out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metapl import rng
from metapl.errors import InputError
from metapl.types import Key


class Split(NamedTuple):
    """Indices into the training pool, int64, sorted. The test set is apart from all of them."""

    labelled: Tensor
    unlabelled: Tensor
    validation: Tensor


def _balanced(y: Tensor, candidates: Tensor, count: int, classes: int, key: Key) -> Tensor:
    """`count` of the candidates, equally many of each class; what is left over goes to classes drawn by the key."""
    order_key, extra_key = rng.split(key, 2)
    quota = torch.full((classes,), count // classes)
    quota[rng.permutation(extra_key, classes)[: count % classes]] += 1
    shuffled = candidates[rng.permutation(order_key, len(candidates))]
    chosen = []
    for label in range(classes):
        members = shuffled[y[shuffled] == label]
        if len(members) < quota[label]:
            raise InputError(
                f"class {label} has {len(members)} examples to choose from, {int(quota[label])} are wanted: "
                f"ask for at most {len(members) * classes} in all"
            )
        chosen.append(members[: int(quota[label])])
    return torch.cat(chosen).sort().values


def _without(candidates: Tensor, taken: Tensor) -> Tensor:
    return candidates[~torch.isin(candidates, taken)]


def split(
    y: Tensor, classes: int, *, labels: int, validation: int, key: Key, labelled_in_unlabelled: bool = True
) -> Split:
    """A class-balanced split of the training pool, determined by the key.

    Args:
        y: class indices `[examples]` of the pool.
        classes: how many classes there are.
        labels: how many examples keep their label, in all.
        validation: how many labelled examples are held out, for choosing hyperparameters and nothing else.
        key: randomness.
        labelled_in_unlabelled: whether the labelled examples are also in the unlabelled set, as in the
            released code of Meta Pseudo Labels.

    Raises:
        InputError: fewer labels than classes, or more than there are.
    """
    if labels < classes:
        raise InputError(f"--labels {labels} leaves a class without an example: give at least {classes}, one a class")
    if validation and validation < classes:
        raise InputError(f"--validation {validation} leaves a class out: give 0 or at least {classes}")
    if validation + classes > len(y):
        raise InputError(f"--validation {validation} leaves too few of the {len(y)} training examples: lower it")
    if labels + validation > len(y):
        raise InputError(
            f"--labels {labels} and --validation {validation} are more than the {len(y)} training examples: "
            f"give at most {len(y) - validation} labels"
        )
    validation_key, labelled_key = rng.split(key, 2)
    pool = torch.arange(len(y))
    held_out = _balanced(y, pool, validation, classes, validation_key)
    rest = _without(pool, held_out)
    labelled = _balanced(y, rest, labels, classes, labelled_key)
    return Split(labelled, rest if labelled_in_unlabelled else _without(rest, labelled), held_out)
