"""How a classical method chooses its settings: on the validation part, else by cross-validation, else not at all.

The setting with the most right answers is taken, the preferred one of several, as a grid search has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key
from metapl.methods.seen import Seen

FOLDS = 5
"""Of cross-validation; fewer where no class has as many labels."""

MOST = 500
"""At most so many labelled examples, and validation examples, take part in a choice."""


class Round(NamedTuple):
    """A part of the examples whose classes are known, by their indices: some are shown, others are asked for."""

    shown: Tensor
    asked: Tensor


class Trial(NamedTuple):
    """The rounds of a choice, and what they are called."""

    rounds: Sequence[Round]
    """None where nothing can be asked."""
    name: str


def trial(seen: Seen) -> Trial:
    """How settings are compared: by one round on the validation part, or a fold each of the labelled examples.

    A class with one label is shown in every fold. With one label a class nothing is left to ask for.
    """
    labelled = _some(torch.arange(seen.labelled), seen.key)
    if seen.validation:
        asked = _some(torch.arange(seen.labelled, len(seen.y)), seen.key)
        return Trial([Round(labelled, asked)], f"chosen on {len(asked)} validation examples")
    found = list(folds(labelled, seen.y[labelled], seen.key))
    if not found:
        return Trial([], "not chosen, since one label a class cannot be cross-validated")
    return Trial(found, f"chosen by {len(found)} folds of {len(labelled)} labelled examples")


def _some(index: Tensor, key: Key) -> Tensor:
    return index[rng.permutation(key, len(index))[:MOST].sort().values] if len(index) > MOST else index


def folds(index: Tensor, y: Tensor, key: Key, most: int = FOLDS) -> Iterator[Round]:
    """At most so many folds, of one size and with the same classes in each as far as that is possible.

    Classes with one example are never asked for.
    """
    order = rng.permutation(key, len(y))
    order = order[torch.argsort(y[order], stable=True)]
    counts = y.bincount()
    free = order[counts[y[order]] > 1]
    several = min(most, int(counts.max()))
    each = len(free) // several
    for fold in range(several if each else 0):
        asked = free[fold::several][:each]
        shown = torch.ones(len(y), dtype=torch.bool)
        shown[asked] = False
        yield Round(index[shown], index[asked])


def hits(trial: Trial, y: Tensor, answer: Callable[[Round], Tensor]) -> Tensor:
    """Whether each example that is asked for is answered right, bool; `answer(round)` gives their classes."""
    return torch.cat([answer(one) == y[one.asked] for one in trial.rounds])


def best(hits: Sequence[Tensor], ahead: int = 0) -> int:
    """The setting to take, by the hits `[asked]` of each, bool; the first is the preferred one.

    The one with the most hits, the first of several, if it has over `ahead` more than the first.
    """
    counts = [int(one.sum()) for one in hits]
    winner = counts.index(max(counts))
    return winner if counts[winner] - counts[0] > ahead else 0
