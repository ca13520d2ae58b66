"""What a training method is, and the parts that methods share.

A method is a `Method`: three pure functions that the training loop calls. What the command line, the phases of a run
and the reports know of it is its `MethodSpec`, see `metapl.methods.spec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from metapl.core import losses, rng, tree
from metapl.core.types import Buffers, Key, Model, Optimizer, Params, PyTree, TrainState, Variables
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch
from metapl.methods import exams, feedback_scale
from metapl.methods.consistency.loss import Consistency, Memory, consistency_loss
from metapl.methods.consistency.mixing import Mixed
from metapl.methods.consistency.predictions import Predictions
from metapl.methods.exams import ExamRule
from metapl.methods.feedback_scale import Size
from metapl.registry.errors import InputError

Networks: TypeAlias = Mapping[str, Variables]
"""Networks by name."""


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
    exam: ExamRule = exams.weak
    """On what the student is tested."""
    feedback_size: Size = feedback_scale.cosine()
    """The rule for the factor of the feedback; see `metapl.methods.feedback_scale`."""
    uda_weight: float | Tensor = 1.0
    """Factor of the consistency loss; 0 leaves the weak view out altogether."""
    uda_temperature: float | Tensor = 0.7
    uda_threshold: float | Tensor = 0.6
    consistency: Consistency = Consistency()
    """The rules of the consistency loss; see `metapl.methods.consistency`."""
    guide: Tensor | None = None
    """What a classical method says of every example of the pool: log-probabilities `[examples, classes]`."""
    guide_weight: float | Tensor = 1.0
    """Its exponent in the consistency target, which is p(weak view) · guide ^ weight before it is aligned."""
    class_weights: Tensor | None = None
    """Factor of the supervised loss for each class, `[classes]`."""
    logit_shift: Tensor | None = None
    """What is added to the logits of labelled examples in training, `[classes]`."""
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


class Trainable(NamedTuple):
    """A network and the optimiser that trains it."""

    model: Model
    optimizer: Optimizer


def new_train_state(trainable: Trainable, key: Key) -> TrainState:
    """The train state before the first step.

    Raises:
        InputError: the network has no parameter to train.
    """
    params, buffers = trainable.model.init(key)
    if not params:
        raise InputError("the network has no parameter that requires a gradient: there is nothing to train")
    return TrainState(params, buffers, trainable.optimizer.init(params))


def apply_gradient(optimizer: Optimizer, train_state: TrainState, grads: Params, buffers: Buffers) -> TrainState:
    """The train state after one update, with the buffers of the pass that made the gradient."""
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


def supervised_loss(recipe: Recipe, logits: Tensor, y: Tensor) -> Tensor:
    """The mean cross entropy of labelled examples, with the recipe's smoothing, class weights and shift; a scalar."""
    shifted = logits if recipe.logit_shift is None else logits + recipe.logit_shift.to(logits)
    per_example = losses.cross_entropy(shifted, y, recipe.smoothing)
    if recipe.class_weights is not None:
        per_example = per_example * recipe.class_weights.to(logits)[y]
    return per_example.mean()


def self_loss(
    recipe: Recipe,
    logits: dict[str, Tensor],
    batch: Batch,
    step: Tensor,
    memory: Memory,
    mixed: Mixed | None = None,
) -> tuple[Tensor, tuple[Memory, dict[str, Tensor]]]:
    """What a network learns without feedback: supervised loss, and consistency where a weak view is among the logits.

    Args:
        recipe: the numbers and the rules.
        logits: by view.
        batch: the classes of the labelled examples, and where the unlabelled ones stand in the training pool.
        step: the steps taken so far, for the ramp of the consistency loss.
        memory: of the rules of the consistency loss.
        mixed: what is in the strong view, if it was mixed.

    Returns:
        A scalar, and beside it the next memory and scalars worth logging.
    """
    supervised = supervised_loss(recipe, logits["labelled"], batch.y_labelled)
    if "weak" not in logits:
        return supervised, (memory, {"supervised": supervised.detach()})
    predictions = Predictions(logits["labelled"], guided(recipe, logits["weak"], batch), batch.unlabelled)
    consistency, memory = consistency_loss(
        recipe.consistency, memory, predictions, logits["strong"], recipe.uda_temperature, recipe.uda_threshold, mixed
    )
    weight = recipe.uda_weight * torch.clamp((step + 1).double() / max(recipe.uda_ramp, 1), max=1.0)
    total = supervised + weight * consistency
    return total, (memory, {"supervised": supervised.detach(), "uda": consistency.detach()})


def guided(recipe: Recipe, weak: Tensor, batch: Batch) -> Tensor:
    """Logits `[batch, classes]` of the weak view times the guide of the recipe, if it has one: a product of experts."""
    if recipe.guide is None:
        return weak
    if batch.unlabelled is None:
        raise ValueError("a guide is looked up by example: the batch needs its positions in the pool")
    return weak + (recipe.guide_weight * recipe.guide[batch.unlabelled]).to(weak.dtype)


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


def mix(recipe: Recipe, x: dict[str, Tensor], key: Key) -> tuple[dict[str, Tensor], Mixed | None]:
    """The views with the strong one mixed by the recipe's rule, and what was mixed; as they are without a weak view.

    The key is that of the views.
    """
    if "weak" not in x:
        return x, None
    strong, mixed = recipe.consistency.mixing(x["strong"], key)
    return {**x, "strong": strong}, mixed


def forward(
    model: Model, params: Params, buffers: Buffers, x: dict[str, Tensor], key: Key
) -> tuple[dict[str, Tensor], Buffers]:
    """One training-mode pass over all views together, so that BatchNorm sees them as one batch."""
    logits, buffers = model.apply(params, buffers, torch.cat(list(x.values())), train=True, key=key)
    parts = logits.split([len(view) for view in x.values()])
    return dict(zip(x, parts, strict=True)), buffers
