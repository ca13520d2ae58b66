"""The first half of a step of Meta Pseudo Labels: what the teacher says, and the bilevel problem that this makes.

    batch ─► weak and strong views
    teacher, forward once on [labelled, weak, strong] ─► logits; the strong ones are the meta-parameters
    inner problem: the student's loss on the pseudo labels; outer problem: its loss on the exam

`metapl.methods.mpl` takes it from there: the estimator, the student's step and the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

from metapl.core import autodiff, losses, rng
from metapl.core.types import Buffers, Instance, Key, Params, Problem, TargetTransform, TrainState
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch
from metapl.methods.base import Recipe, Trainable, forward, mix, views
from metapl.methods.consistency.mixing import Mixed


class TeacherPass(NamedTuple):
    """The teacher's forward pass of a step, and the instance of the bilevel problem that it gives the student."""

    logits: dict[str, Tensor]
    """Of the teacher, by view."""
    buffers: Buffers
    """The teacher's after the pass."""
    pull: Callable[[dict[str, Tensor]], Params]
    """The way back from cotangents of the logits to the teacher's parameters; to be taken once."""
    instance: Instance
    mixed: Mixed | None = None
    """What is in the strong view, if it was mixed."""
    learnt: Tensor | None = None
    """Which of the labelled examples the teacher learns, as indices; None for all of them."""

    def learning(self, batch: Batch) -> tuple[dict[str, Tensor], Batch]:
        """What the teacher's own loss sees: its logits and the batch, without the examples that it does not learn."""
        if self.learnt is None:
            return self.logits, batch
        logits = {**self.logits, "labelled": self.logits["labelled"][self.learnt]}
        return logits, batch._replace(y_labelled=batch.y_labelled[self.learnt])


TeacherInputs: TypeAlias = Callable[[dict[str, Tensor], Batch], dict[str, Tensor]]
"""`inputs(views, batch)`: what the teacher sees where the student sees the views."""


def teacher_passes(
    teacher: Trainable,
    student: Trainable,
    labels: TargetTransform,
    augment: Augment,
    recipe: Recipe,
    inputs: TeacherInputs = lambda views, batch: views,  # noqa: ARG005
) -> Callable[[TrainState, TrainState, Batch, Key], TeacherPass]:
    """The first half of a step: `teacher_pass(teacher_state, student_state, batch, key)`.

    The arguments here are those of `metapl.methods.mpl.meta_pseudo_labels`.
    """

    def inner(params: Params, buffers: Buffers, targets: Tensor, batch: tuple[Tensor, Key]) -> tuple[Tensor, Buffers]:
        x, key = batch
        logits, buffers = student.model.apply(params, buffers, x, train=True, key=key)
        return losses.cross_entropy(logits, targets, recipe.smoothing), buffers

    def outer(params: Params, buffers: Buffers, exam: tuple[Tensor, Tensor, Key]) -> Tensor:
        x, y, key = exam
        logits, _ = student.model.apply(params, buffers, x, train=True, key=key)
        return losses.cross_entropy(logits, y).mean()

    problem = Problem(inner, outer, student.optimizer, labels)
    seen = ("labelled", "weak", "strong") if recipe.consistent else ("labelled", "strong")

    def teacher_pass(teacher_state: TrainState, student_state: TrainState, batch: Batch, key: Key) -> TeacherPass:
        view_key, teacher_key, student_key, exam_key, label_key = rng.split(key, 5)
        x, mixed = mix(recipe, views(seen, augment, batch, view_key), view_key)
        logits, buffers, pull = autodiff.vjp(
            lambda params: forward(teacher.model, params, teacher_state.buffers, inputs(x, batch), teacher_key),
            teacher_state.params,
        )
        keys = [student_key] if recipe.unroll == 1 else rng.split(student_key, recipe.unroll)
        batches = list(zip(x["strong"].chunk(recipe.unroll), keys, strict=True))
        exam = recipe.exam(x["labelled"], batch, augment, exam_key)
        thetas = list(logits["strong"].chunk(recipe.unroll))
        instance = Instance(problem, thetas, student_state, batches, (exam.x, exam.y, exam_key), label_key)
        return TeacherPass(logits, buffers, pull, instance, mixed, exam.learnt)

    return teacher_pass
