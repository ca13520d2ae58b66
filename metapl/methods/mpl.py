"""Meta Pseudo Labels as one pure step.

    batch ─► weak and strong views
    teacher, forward once on [labelled, weak, strong] ─► logits; the strong ones are the lesson
    lesson ─► labels ─► the student's step ─► exam on the labelled batch ─► feedback = d exam / d lesson
    teacher's loss: supervised + UDA + ⟨feedback, lesson⟩, pulled back once through the same forward pass
    teacher's step; moving average of the student

The student sees pseudo labels only; the labelled batch reaches it through the teacher. Source: Pham et al., *Meta
Pseudo Labels*, CVPR 2021, with the details of the released code where the paper is silent, and without its defects
(docs/maths.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from metapl.core import autodiff, losses, rng, tree
from metapl.core.types import (
    Buffers,
    Estimator,
    Instance,
    Key,
    Model,
    Optimizer,
    Params,
    Problem,
    PyTree,
    TargetTransform,
    TrainState,
    Variables,
)
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch
from metapl.methods import feedback_scale
from metapl.methods.feedback_scale import Size, Statistics
from metapl.registry.errors import InputError


class Method(NamedTuple):
    """A training method as pure functions; the trainer knows nothing else of it."""

    init: Callable[[Key], PyTree]
    """`init(key)`: the state before the first step."""
    step: Callable[[PyTree, Batch, Key], tuple[PyTree, dict[str, Tensor]]]
    """`step(state, batch, key)`: the next state, and scalars worth logging."""
    networks: Callable[[PyTree], dict[str, Variables]]
    """`networks(state)`: what can be evaluated, by name."""
    sees: tuple[str, ...] = ("x_labelled", "x_unlabelled")
    """Fields of the batch whose examples a step looks at; others may be empty."""


class Recipe(NamedTuple):
    """The numbers of the loss, shared by Meta Pseudo Labels and its baselines.

    A number may be a scalar tensor, so that `torch.vmap` can go over it.
    """

    feedback_weight: float | Tensor = 1.0
    """Factor of the feedback in the teacher's gradient."""
    unroll: int = 1
    """K, the student's steps for each of the teacher's."""
    feedback_size: Size = feedback_scale.cosine()
    """The rule for the factor of the feedback; see `metapl.methods.feedback_scale`."""
    uda_weight: float | Tensor = 1.0
    """Factor of the consistency loss; 0 leaves the weak view out altogether."""
    uda_temperature: float | Tensor = 0.7
    uda_threshold: float | Tensor = 0.6
    uda_ramp: int = 0
    """Steps over which the UDA weight grows linearly from 0."""
    smoothing: float | Tensor = 0.0
    """Label smoothing of the supervised loss and of the student's loss, as in the released code; never of the exam."""
    ema: float | Tensor = 0.99
    """Decay of the moving average of the weights; early on min(ema, (step + 1) / (step + 10))."""
    labelled: float = 1.0
    """Labelled examples a class, of all that there are; some rules of the size ask for it."""

    @property
    def consistent(self) -> bool:
        """Whether there is a consistency loss, which needs the weak view."""
        return isinstance(self.uda_weight, Tensor) or self.uda_weight > 0


class State(NamedTuple):
    """Everything that changes in a run of Meta Pseudo Labels."""

    teacher: TrainState
    student: TrainState
    ema: Variables
    memory: PyTree
    """The estimator's."""
    step: Tensor


class Trainable(NamedTuple):
    """A network and the optimiser that trains it."""

    model: Model
    optimizer: Optimizer


def new_train_state(trainable: Trainable, key: Key) -> TrainState:
    """A learner before its first step; an `InputError` if the network has nothing to train."""
    params, buffers = trainable.model.init(key)
    if not params:
        raise InputError("the network has no parameter that requires a gradient: there is nothing to train")
    return TrainState(params, buffers, trainable.optimizer.init(params))


def apply_gradient(optimizer: Optimizer, train_state: TrainState, grads: Params, buffers: Buffers) -> TrainState:
    """The learner after one update, with the buffers of the pass that made the gradient."""
    with torch.no_grad():
        updates, opt_state = optimizer.update(grads, train_state.opt_state, train_state.params)
        return TrainState(tree.add(train_state.params, updates), buffers, opt_state)


def average(ema: Variables, train_state: TrainState, step: Tensor, decay: float | Tensor) -> Variables:
    """The moving average of parameters and buffers, BatchNorm's statistics included."""
    kept = torch.clamp((step + 1).double() / (step + 10), max=decay)
    weight = 1.0 - kept
    return Variables(
        tree.lerp(ema.params, train_state.params, weight), tree.lerp(ema.buffers, train_state.buffers, weight)
    )


def self_loss(recipe: Recipe, logits: dict[str, Tensor], y: Tensor, step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """What a network learns without feedback: supervised loss, and UDA where a weak view is among the logits."""
    supervised = losses.cross_entropy(logits["labelled"], y, recipe.smoothing).mean()
    if "weak" not in logits:
        return supervised, {"supervised": supervised.detach()}
    per_example = losses.uda(logits["weak"], logits["strong"], recipe.uda_temperature, recipe.uda_threshold)
    weight = recipe.uda_weight * torch.clamp((step + 1).double() / max(recipe.uda_ramp, 1), max=1.0)
    consistency = per_example.mean()
    total = supervised + weight * consistency
    return total, {"supervised": supervised.detach(), "uda": consistency.detach()}


def views(names: Sequence[str], augment: Augment, batch: Batch, key: Key) -> dict[str, Tensor]:
    """The views of a batch by name: "labelled" (weakly augmented), "weak" and "strong" (of the unlabelled examples)."""
    labelled_key, weak_key, strong_key, labelled_shared, shared = rng.split(key, 5)
    if names != ("labelled",):
        unlabelled = augment.shared(batch.x_unlabelled, shared)
    makers = {
        "labelled": lambda: augment.weak(augment.shared(batch.x_labelled, labelled_shared), labelled_key),
        "weak": lambda: augment.weak(unlabelled, weak_key),
        "strong": lambda: augment.strong(unlabelled, strong_key),
    }
    return {name: augment.prepare(makers[name]()) for name in names}


def forward(
    model: Model, params: Params, buffers: Buffers, x: dict[str, Tensor], key: Key
) -> tuple[dict[str, Tensor], Buffers]:
    """One training-mode pass over all views together, so that BatchNorm sees them as one batch."""
    logits, buffers = model.apply(params, buffers, torch.cat(list(x.values())), train=True, key=key)
    parts = logits.split([len(view) for view in x.values()])
    return dict(zip(x, parts, strict=True)), buffers


class TeacherPass(NamedTuple):
    """The teacher's forward pass of a step, and what comes of it for the student."""

    logits: dict[str, Tensor]
    """Of the teacher, by view."""
    buffers: Buffers
    """The teacher's after the pass."""
    pull: Callable[[dict[str, Tensor]], Params]
    """The way back from cotangents of the logits to the teacher's parameters; to be taken once."""
    instance: Instance
    labelled: Tensor
    """The classes of the labelled examples."""


TeacherInputs: TypeAlias = Callable[[dict[str, Tensor], Batch], dict[str, Tensor]]
"""`see(views, batch)`: what the teacher sees where the student sees the views."""


def teacher_passes(
    teacher: Trainable,
    student: Trainable,
    labels: TargetTransform,
    augment: Augment,
    recipe: Recipe,
    see: TeacherInputs = lambda views, batch: views,  # noqa: ARG005
) -> Callable[[State, Batch, Key], TeacherPass]:
    """The first half of a step as a function of the state, the batch and the key; see `meta_pseudo_labels`."""

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

    def teacher_pass(state: State, batch: Batch, key: Key) -> TeacherPass:
        view_key, teacher_key, student_key, exam_key, label_key = rng.split(key, 5)
        x = views(seen, augment, batch, view_key)
        logits, buffers, pull = autodiff.vjp(
            lambda params: forward(teacher.model, params, state.teacher.buffers, see(x, batch), teacher_key),
            state.teacher.params,
        )
        keys = [student_key] if recipe.unroll == 1 else rng.split(student_key, recipe.unroll)
        batches = list(zip(x["strong"].chunk(recipe.unroll), keys, strict=True))
        exam = (x["labelled"], batch.y_labelled, exam_key)
        thetas = list(logits["strong"].chunk(recipe.unroll))
        instance = Instance(problem, thetas, state.student, batches, exam, label_key)
        return TeacherPass(logits, buffers, pull, instance, batch.y_labelled)

    return teacher_pass


def meta_pseudo_labels(
    teacher: Trainable,
    student: Trainable,
    estimator: Estimator,
    labels: TargetTransform,
    augment: Augment,
    recipe: Recipe,
    see: TeacherInputs = lambda views, batch: views,  # noqa: ARG005
) -> Method:
    """Meta Pseudo Labels with any estimator of the feedback.

    Args:
        teacher: makes the labels; learns from labelled data, from UDA and from the feedback.
        student: learns from the teacher's labels of the strong view. The feedback sees its real optimiser.
        estimator: how the feedback is computed, such as `estimators.exact()`.
        labels: soft, sampled or argmax, of the kinds that the estimator takes.
        augment: the weak and the strong view.
        recipe: the numbers. With `unroll` K the unlabelled batch is K batches of the student, one after another.
        see: what the teacher sees in place of the views, such as what a fixed network said of the examples.

    Returns:
        A method with the networks "teacher", "student" and "ema" (of the student).
    """
    teacher_pass = teacher_passes(teacher, student, labels, augment, recipe, see)

    def init(key: Key) -> State:
        teacher_key, student_key = rng.split(key, 2)
        student_state = new_train_state(student, student_key)
        step = torch.zeros((), dtype=torch.int64, device=next(iter(student_state.params.values())).device)
        ema = Variables(student_state.params, student_state.buffers)
        return State(new_train_state(teacher, teacher_key), student_state, ema, estimator.init(), step)

    def step(state: State, batch: Batch, key: Key) -> tuple[State, dict[str, Tensor]]:
        given = teacher_pass(state, batch, key)
        feedback, memory = estimator.estimate(given.instance, state.memory)
        cotangent = torch.cat(list(feedback.grads))
        _, parts, own = autodiff.value_and_grad(
            lambda logits: self_loss(recipe, logits, given.labelled, state.step), given.logits
        )
        size = tree.norm(cotangent)
        told = Statistics(size, feedback.scale, feedback.outer, tree.norm(own), cotangent.shape[-1], recipe.labelled)
        factor = recipe.feedback_weight * recipe.feedback_size(told)
        cotangents = {**own, "strong": own["strong"] + factor * cotangent}
        taught = apply_gradient(teacher.optimizer, state.teacher, given.pull(cotangents), given.buffers)
        ema = average(state.ema, feedback.state, state.step, recipe.ema)
        metrics = {**parts, "student": feedback.inner, "exam": feedback.outer, "feedback": factor * size}
        return State(taught, feedback.state, ema, memory, state.step + 1), metrics

    def networks(state: State) -> dict[str, Variables]:
        return {
            "teacher": Variables(state.teacher.params, state.teacher.buffers),
            "student": Variables(state.student.params, state.student.buffers),
            "ema": state.ema,
        }

    return Method(init, step, networks)
