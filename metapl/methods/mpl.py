"""Meta Pseudo Labels as one pure step.

    batch ─► weak and strong views
    teacher, forward once on [labelled, weak, strong] ─► logits; the strong ones are the meta-parameters
    strong logits ─► pseudo labels ─► the student's step ─► exam on the labelled batch
    feedback = d exam loss / d strong logits
    teacher's loss: supervised + UDA + ⟨feedback, strong logits⟩, pulled back once through the same forward pass
    teacher's step; moving average of the student

The student sees pseudo labels only; the labelled batch reaches it through the teacher. Source: Pham et al., *Meta
Pseudo Labels*, CVPR 2021, with the details of the released code where the paper is silent, and without its defects
(docs/maths.md).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import autodiff, rng, tree
from metapl.core.types import Estimator, Key, PyTree, TargetTransform, TrainState, Variables
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch
from metapl.methods.base import (
    Method,
    Networks,
    Recipe,
    Trainable,
    apply_gradient,
    average,
    new_train_state,
    self_loss,
)
from metapl.methods.consistency.loss import Memory
from metapl.methods.feedback_scale import Statistics
from metapl.methods.finetune import finetuning
from metapl.methods.spec import Given, MethodSpec, NetworkSpec, PhaseSpec
from metapl.methods.teacher_pass import TeacherInputs, teacher_passes


class State(NamedTuple):
    """Everything that changes in a run of Meta Pseudo Labels."""

    teacher: TrainState
    student: TrainState
    ema: Variables
    memory: PyTree
    """The estimator's."""
    step: Tensor
    consistency: Memory = Memory()
    """Of the rules of the teacher's consistency loss."""


def meta_pseudo_labels(
    teacher: Trainable,
    student: Trainable,
    estimator: Estimator,
    labels: TargetTransform,
    augment: Augment,
    recipe: Recipe,
    inputs: TeacherInputs = lambda views, batch: views,  # noqa: ARG005
) -> Method:
    """Meta Pseudo Labels with any estimator of the feedback.

    Args:
        teacher: makes the labels; learns from labelled data, from UDA and from the feedback.
        student: learns from the teacher's labels of the strong view. The feedback sees its real optimiser.
        estimator: how the feedback is computed, such as `estimators.exact()`.
        labels: soft, sampled or argmax, of the kinds that the estimator takes.
        augment: the weak and the strong view.
        recipe: the numbers. With `unroll` K the unlabelled batch is K batches of the student, one after another.
        inputs: what the teacher sees in place of the views, such as what a fixed network said of the examples.

    Returns:
        A method with the networks "teacher", "student" and "ema" (of the student).
    """
    teacher_pass = teacher_passes(teacher, student, labels, augment, recipe, inputs)

    def init(key: Key) -> State:
        teacher_key, student_key = rng.split(key, 2)
        student_state = new_train_state(student, student_key)
        like = next(iter(student_state.params.values()))
        first = torch.zeros((), dtype=torch.int64, device=like.device)
        teacher_state, remembered = new_train_state(teacher, teacher_key), recipe.consistency.init(like)
        # Apart, counters aside, as `average` leaves it: for tensors that are one a compiler makes another step.
        ema = tree.map(lambda leaf: leaf.clone() if tree.differentiable(leaf) else leaf, _weights(student_state))
        return State(teacher_state, student_state, ema, estimator.init(), first, remembered)

    def step(state: State, batch: Batch, key: Key) -> tuple[State, dict[str, Tensor]]:
        given = teacher_pass(state.teacher, state.student, batch, key)
        feedback, memory = estimator.estimate(given.instance, state.memory)
        cotangent = torch.cat(list(feedback.grads))

        def own_loss(logits: dict[str, Tensor]) -> tuple[Tensor, tuple[Memory, dict[str, Tensor]]]:
            seen = given._replace(logits=logits).learning(batch)
            return self_loss(recipe, *seen, state.step, state.consistency, given.mixed)

        _, (remembered, parts), own = autodiff.value_and_grad(own_loss, given.logits)
        size = tree.norm(cotangent)
        factor = recipe.feedback_weight * recipe.feedback_size(
            Statistics(size, feedback.scale, feedback.outer, tree.norm(own), cotangent.shape[-1], recipe.labelled)
        )
        grads = given.pull({**own, "strong": own["strong"] + factor * cotangent})
        updated = apply_gradient(teacher.optimizer, state.teacher, grads, given.buffers)
        ema = average(state.ema, feedback.state, state.step, recipe.ema)
        metrics = {**parts, "student": feedback.inner, "exam": feedback.outer, "feedback": factor * size}
        return State(updated, feedback.state, ema, memory, state.step + 1, remembered), metrics

    return Method(init, step, networks_of)


def networks_of(state: State) -> dict[str, Variables]:
    """What can be evaluated."""
    return {"teacher": _weights(state.teacher), "student": _weights(state.student), "ema": state.ema}


def _weights(train_state: TrainState) -> Variables:
    return Variables(train_state.params, train_state.buffers)


def trained_student(given: Given) -> Trainable:
    """The student with its optimiser, which takes `unroll` steps for each of the teacher's."""
    wait, pace = given.number("student_wait"), given.recipe.unroll
    return given.trainable(given.models.student, "lr", wait=wait, pace=pace)


def build(given: Given, networks: Networks) -> Method:
    """The phase of a run."""
    del networks  # it needs none
    teacher = given.trainable(given.models.teacher, "teacher_lr")
    student = trained_student(given)
    return meta_pseudo_labels(teacher, student, given.estimator, given.targets, given.augment, given.recipe)


TEACHER = NetworkSpec(
    title="teacher",
    role="the teacher at the end of its training",
    row=50,
    built_from={"": "teacher"},
    colour="vermillion",
)
"""The teacher, as the rest of the library knows it."""

STUDENTS = {
    "student": NetworkSpec(title="student", role="the student's last weights", row=60, colour="sky", width=1.4),
    "ema": NetworkSpec(
        title="student, averaged",
        role="the moving average of the student's weights, before any finetuning",
        row=70,
        preference=40,
        colour="blue",
    ),
}
"""The student, its average and its finetuned form."""

METHOD = MethodSpec(
    title="Meta Pseudo Labels",
    summary="A student {model} {learnt} with a teacher {teacher}, {labels} pseudo labels, "
    "and feedback by {grad} (claim: {claim}).",
    guided=True,
    source="Meta Pseudo Labels ([Pham et al., CVPR 2021](https://arxiv.org/abs/2003.10580))",
    phases=(
        PhaseSpec("mpl", build, {"teacher": TEACHER, **STUDENTS}, unrolled=True),
        finetuning("ema"),
    ),
    baselines=("supervised", "pseudo-labels", "uda"),
    models={"teacher": "teacher", "student": "student"},
    paired=True,
)
"""The method `mpl`."""
