"""The rules of the losses that a configuration names, read once, and built for the classes of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl.data import prior
from metapl.methods import imbalance
from metapl.methods.base import Recipe
from metapl.methods.consistency.alignment import ALIGNMENTS, Alignment
from metapl.methods.consistency.loss import Consistency
from metapl.methods.consistency.mixing import MIXINGS, Mixing
from metapl.methods.consistency.predictions import Pool
from metapl.methods.consistency.target import CONSISTENCY_TARGETS, Target
from metapl.methods.consistency.threshold import THRESHOLDS, Threshold
from metapl.methods.exams import EXAMS, ExamRule
from metapl.methods.feedback_scale import SIZES, Size
from metapl.methods.imbalance import CLASS_WEIGHTS
from metapl.registry import notation
from metapl.registry.errors import unknown
from metapl.training.config import TrainConfig


class Rules(NamedTuple):
    """The rules by their constructors, which take what only a split knows."""

    alignment: Callable[[Pool], Alignment]
    threshold: Callable[[Pool], Threshold]
    target: Target
    mixing: Mixing
    prior: Callable[[Tensor], Tensor]
    """The probability of each class, from the counts of labelled examples."""
    guess: bool
    """Whether the prior is a guess: what a guide finds among the examples takes its place."""
    class_weights: Callable[[Tensor], Tensor | None]
    logit_adjustment: float
    feedback_size: Size
    exam: ExamRule

    def fill(
        self, recipe: Recipe, counts: Tensor, examples: int, unlabelled: int, found: Tensor | None = None
    ) -> Recipe:
        """A recipe with the rules in it.

        Args:
            recipe: the numbers.
            counts: labelled examples of each class, `[classes]`.
            examples: in the training pool.
            unlabelled: in the unlabelled set.
            found: the share of each class in the answers of a guide, `[classes]`, if there is one.
        """
        shares = found if self.guess and found is not None else self.prior(counts)
        pool = Pool(shares, examples, unlabelled)
        return recipe._replace(
            consistency=Consistency(self.alignment(pool), self.threshold(pool), self.target, self.mixing),
            class_weights=self.class_weights(counts),
            logit_shift=imbalance.adjustment(counts, self.logit_adjustment),
            feedback_size=self.feedback_size,
            exam=self.exam,
        )


def read(config: TrainConfig, classes: Sequence[str], device: torch.device) -> Rules:
    """The rules that a configuration names.

    Raises:
        InputError: an unknown name or option, a value out of range, or a prior that is none.
    """
    found = Rules(
        notation.bind(config.alignment, ALIGNMENTS, "alignment"),
        notation.bind(config.threshold, THRESHOLDS, "threshold"),
        notation.build(config.consistency_target, CONSISTENCY_TARGETS, "consistency target"),
        notation.build(config.mixing, MIXINGS, "mixing"),
        _prior(config.prior, classes, device),
        config.prior == "estimated",
        notation.bind(config.class_weights, CLASS_WEIGHTS, "class weights"),
        config.logit_adjustment,
        notation.build(config.feedback_size, SIZES, "feedback size"),
        _exam(config.exam),
    )
    found.fill(Recipe(), torch.ones(len(classes), dtype=torch.int64), 0, 0)  # what is out of range is so now
    return found


def _exam(name: str) -> ExamRule:
    if name not in EXAMS:
        raise unknown("exam", name, EXAMS)
    return EXAMS[name]


def _prior(text: str, classes: Sequence[str], device: torch.device) -> Callable[[Tensor], Tensor]:
    if text == "labelled":
        return lambda counts: counts.double() / counts.sum()
    if text == "estimated":
        return prior.estimated
    if text == "uniform":
        known = torch.full((len(classes),), 1.0 / len(classes), dtype=torch.float64, device=device)
    else:
        known = prior.read(Path(text), classes).to(device)
    return lambda counts: known  # noqa: ARG005


def numbers(number: Callable[[str], Any]) -> Recipe:
    """The recipe of a configuration's numbers, with the rules of a recipe that says nothing."""
    return Recipe(**{name: number(name) for name in NUMBERS})


NUMBERS = (
    "feedback_weight",
    "unroll",
    "uda_weight",
    "uda_temperature",
    "uda_threshold",
    "guide_weight",
    "uda_ramp",
    "smoothing",
    "ema",
)
"""The fields of a recipe that are fields of the configuration too."""
