"""What Meta Pseudo Labels is compared with, in the same trainer: supervised, UDA, pseudo labels; finetuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import autodiff, losses, rng
from metapl.core.types import Buffers, Key, Model, Params, TargetTransform, TrainState, Variables
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch
from metapl.methods.mpl import (
    Method,
    Recipe,
    Trainable,
    apply_gradient,
    average,
    forward,
    new_train_state,
    self_loss,
    views,
)

Loss = Callable[[Params, Buffers, Tensor, Batch, Key], tuple[Tensor, tuple[Buffers, dict[str, Tensor]]]]
"""`loss(params, buffers, step, batch, key)`: a scalar, the buffers after the pass and scalars worth logging."""


class SingleState(NamedTuple):
    """Everything that changes while one network trains alone."""

    train_state: TrainState
    ema: Variables
    step: Tensor


def _single(
    trainable: Trainable, loss: Loss, decay: float | Tensor, sees: tuple[str, ...], start: Variables | None = None
) -> Method:
    """A method that trains one network on a loss of what it `sees`, from `start` where it is given."""

    def init(key: Key) -> SingleState:
        if start is None:
            train_state = new_train_state(trainable, key)
        else:
            train_state = TrainState(start.params, start.buffers, trainable.optimizer.init(start.params))
        step = torch.zeros((), dtype=torch.int64, device=next(iter(train_state.params.values())).device)
        return SingleState(train_state, Variables(train_state.params, train_state.buffers), step)

    def step(state: SingleState, batch: Batch, key: Key) -> tuple[SingleState, dict[str, Tensor]]:
        train_state = state.train_state
        _, (buffers, metrics), grads = autodiff.value_and_grad(
            lambda params: loss(params, train_state.buffers, state.step, batch, key), train_state.params
        )
        train_state = apply_gradient(trainable.optimizer, train_state, grads, buffers)
        return SingleState(train_state, average(state.ema, train_state, state.step, decay), state.step + 1), metrics

    def networks(state: SingleState) -> dict[str, Variables]:
        return {"model": Variables(state.train_state.params, state.train_state.buffers), "ema": state.ema}

    return Method(init, step, networks, sees)


def supervised(trainable: Trainable, augment: Augment, recipe: Recipe, start: Variables | None = None) -> Method:
    """Supervised learning on the labelled batch; with `recipe.uda_weight` > 0 it is UDA (Xie et al., NeurIPS 2020).

    It is the teacher's own loss without feedback. From a `start`, it is the final finetuning of Meta Pseudo Labels.
    """
    seen = ("labelled", "weak", "strong") if recipe.consistent else ("labelled",)

    def loss(
        params: Params, buffers: Buffers, step: Tensor, batch: Batch, key: Key
    ) -> tuple[Tensor, tuple[Buffers, dict[str, Tensor]]]:
        view_key, model_key = rng.split(key, 2)
        x = views(seen, augment, batch, view_key)
        logits, buffers = forward(trainable.model, params, buffers, x, model_key)
        total, parts = self_loss(recipe, logits, batch.y_labelled, step)
        return total, (buffers, parts)

    sees = ("x_labelled", "x_unlabelled") if recipe.consistent else ("x_labelled",)
    return _single(trainable, loss, recipe.ema, sees, start)


class Fixed(NamedTuple):
    """A teacher that no longer learns, and how it labels."""

    model: Model
    network: Variables
    labels: TargetTransform


def pseudo_labels(trainable: Trainable, teacher: Fixed, augment: Augment, recipe: Recipe) -> Method:
    """Pseudo labels from a fixed teacher: it labels the weak view, the student learns them on the strong one."""

    def loss(
        params: Params, buffers: Buffers, step: Tensor, batch: Batch, key: Key
    ) -> tuple[Tensor, tuple[Buffers, dict[str, Tensor]]]:
        del step
        weak_key, strong_key, label_key, model_key, shared_key = rng.split(key, 5)
        shared = augment.shared(batch.x_unlabelled, shared_key)
        with torch.no_grad():
            weak = augment.prepare(augment.weak(shared, weak_key))
            targets = teacher.labels.apply(teacher.model.apply(*teacher.network, weak, train=False)[0], label_key)
        x = augment.prepare(augment.strong(shared, strong_key))
        logits, buffers = trainable.model.apply(params, buffers, x, train=True, key=model_key)
        total = losses.cross_entropy(logits, targets, recipe.smoothing).mean()
        return total, (buffers, {"student": total.detach()})

    return _single(trainable, loss, recipe.ema, ("x_unlabelled",))
