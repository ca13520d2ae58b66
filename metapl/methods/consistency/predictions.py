"""What the rules of a consistency loss are computed from: the predictions of a step, and facts about the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

from metapl.core.types import PyTree


class Predictions(NamedTuple):
    """What a network says in one step; constant, no gradient flows through it."""

    labelled: Tensor
    """Logits `[labelled, classes]` of the labelled examples."""
    weak: Tensor
    """Logits `[batch, classes]` of the weak view of the unlabelled examples."""
    positions: Tensor | None = None
    """Where the unlabelled examples stand in the training pool, `[batch]`; for rules that remember each example."""


class Pool(NamedTuple):
    """What the rules know of the data before training."""

    prior: Tensor
    """The probability of each class, `[classes]`."""
    examples: int = 0
    """In the training pool."""
    unlabelled: int = 0
    """Of these, how many are in the unlabelled set."""


InitRule: TypeAlias = Callable[[Tensor], PyTree]
"""`init(like)`: what a rule remembers before the first step, on the device and in the dtype of a tensor."""


def nothing(like: Tensor) -> PyTree:
    """The memory of a rule that remembers nothing."""
    del like
    return ()


def running(mean: Tensor, new: Tensor, decay: float) -> Tensor:
    """decay · mean + (1 − decay) · new: an exponential moving average."""
    return decay * mean + (1.0 - decay) * new


def require_decay(decay: float) -> None:
    """Check the decay of a moving average.

    Raises:
        ValueError: it is not in [0, 1).
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay={decay} must be at least 0 and less than 1")
