"""What the student of Meta Pseudo Labels is tested on, by name, for `--exam`.

A new one is a function here and a line in `EXAMS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch


class Exam(NamedTuple):
    """What the student is tested on in one step."""

    x: Tensor
    """`[asked, ...]`, as the network sees it."""
    y: Tensor
    """Classes `[asked]`."""
    learnt: Tensor | None = None
    """Which of the labelled examples the teacher learns in this step, as indices; None for all of them."""


ExamRule: TypeAlias = Callable[[Tensor, Batch, Augment, Key], Exam]
"""`rule(weak, batch, augment, key)`: weak is the labelled batch as the teacher sees it.

The key is that of the student's dropout in the exam too: a rule that draws folds it with `DRAWS` first.
"""

DRAWS = 1
"""See `ExamRule`. A key is folded where it is used only, since that takes as long as a layer of a small network."""


def weak(weak: Tensor, batch: Batch, augment: Augment, key: Key) -> Exam:
    """The labelled batch as the teacher sees it, as in the paper."""
    del augment, key
    return Exam(weak, batch.y_labelled)


def strong(weak: Tensor, batch: Batch, augment: Augment, key: Key) -> Exam:
    """The strong view of the labelled batch, which a network has not fitted."""
    del weak
    shared_key, strong_key = rng.split(rng.fold_in(key, DRAWS), 2)
    moved = augment.shared(batch.x_labelled, shared_key)
    return Exam(augment.prepare(augment.strong(moved, strong_key)), batch.y_labelled)


def apart(weak: Tensor, batch: Batch, augment: Augment, key: Key) -> Exam:
    """One half of the labelled batch, drawn in every step, while the teacher learns the other half."""
    del augment
    if len(weak) < 2:
        return Exam(weak, batch.y_labelled)
    asked, learnt = rng.permutation(rng.fold_in(key, DRAWS), len(weak), weak.device).tensor_split(2)
    return Exam(weak[asked], batch.y_labelled[asked], learnt)


EXAMS: dict[str, ExamRule] = {"weak": weak, "strong": strong, "apart": apart}
"""The exams by name."""
