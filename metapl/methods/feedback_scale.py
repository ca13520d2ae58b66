"""How long the feedback is made before it is added to the teacher's gradient, by name, for `--feedback-size`.

An estimator returns the feedback as it is: the derivative of the exam loss. Its length depends on the student's
learning rate, on the batch and on how far the exam is solved, so a weight means little without a rule. A rule computes
the factor of the feedback from the `Statistics` of a step. A new one is a function here and a line in `SIZES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class Statistics(NamedTuple):
    """What a rule is computed from; scalars of one step."""

    feedback: Tensor
    """Norm of the feedback over all of the unlabelled batch."""
    scale: Tensor
    """Σ |u||g|, see `metapl.core.types.MetaGradient`."""
    exam: Tensor
    """The exam loss, in nats."""
    own: Tensor
    """Norm of the derivative of the teacher's own loss, supervised and UDA, with respect to its logits."""
    classes: int
    labelled: float
    """Labelled examples a class, of all that there are to train on."""


Size: TypeAlias = Callable[[Statistics], Tensor]
"""`size(statistics)`: the factor of the feedback, before the weight."""


def _over(top: Tensor | float, bottom: Tensor) -> Tensor:
    """top / bottom, and 0 where the bottom is 0, as the feedback then is."""
    return torch.where(bottom > 0, top / bottom, 0.0)


def _fewer(power: float) -> Callable[[Statistics], float]:
    """(labelled examples a class) ^ −power, at most 1."""
    if power < 0:
        raise ValueError(f"power={power} must not be negative")
    return lambda statistics: max(statistics.labelled, 1.0) ** -power


def raw() -> Size:
    """1: the gradient of the exam loss as it is."""
    return lambda statistics: torch.ones_like(statistics.scale)


def cosine(*, power: float = 0.0) -> Size:
    """1 / Σ|u||g|, what makes a cosine of the paper's scalar h; over (labelled examples a class) ^ power.

    As large at the end as at the beginning.

    Args:
        power: 0 for a length that has nothing to do with the labels, 0.5 for half of it with four times as many.

    Raises:
        ValueError: a negative power.
    """
    share = _fewer(power)
    return lambda statistics: _over(share(statistics), statistics.scale)


def exam(*, chance: float = 1.0, power: float = 0.0) -> Size:
    """The cosine's, times min(1, exam loss / (chance · log classes)): less as the exam is solved.

    Args:
        chance: the exam loss above which it is the cosine's, as a share of that of guessing.
        power: as of `cosine`.

    Raises:
        ValueError: a share that is not positive, or a negative power.
    """
    if chance <= 0:
        raise ValueError(f"exam(chance={chance}) must be positive")
    share = _fewer(power)

    def size(statistics: Statistics) -> Tensor:
        left = (statistics.exam / (chance * math.log(statistics.classes))).clamp(max=1.0)
        return _over(left * share(statistics), statistics.scale)

    return size


def relative() -> Size:
    """|own| / |feedback|: as long as the derivative of the teacher's own loss with respect to its logits."""
    return lambda statistics: _over(statistics.own, statistics.feedback)


def capped(*, ratio: float = 1.0) -> Size:
    """The cosine's, but no longer than `ratio` times the derivative of the teacher's own loss.

    Raises:
        ValueError: a ratio that is not positive.
    """
    if ratio <= 0:
        raise ValueError(f"capped(ratio={ratio}) must be positive")
    return lambda statistics: torch.minimum(
        _over(1.0, statistics.scale), ratio * _over(statistics.own, statistics.feedback)
    )


SIZES: dict[str, Callable[..., Size]] = {
    "raw": raw,
    "cosine": cosine,
    "exam": exam,
    "relative": relative,
    "capped": capped,
}
"""The rules by name, for `--feedback-size NAME:key=value,…`."""
