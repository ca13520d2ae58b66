"""What Meta Pseudo Labels is compared with, in the same trainer: supervised, UDA, pseudo labels; finetuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import autodiff, losses, rng
from metapl.core.types import Buffers, Key, Labels, Learner, Model, Params
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch
from metapl.methods.mpl import (
    Method,
    Network,
    Player,
    Recipe,
    apply_gradient,
    average,
    forward,
    new_learner,
    self_loss,
    views,
)

Loss = Callable[[Params, Buffers, Tensor, Batch, Key], tuple[Tensor, tuple[Buffers, dict[str, Tensor]]]]
"""`loss(params, buffers, step, batch, key)`: a scalar, the buffers after the pass and scalars worth logging."""


class SingleState(NamedTuple):
    """Everything that changes while one network trains alone."""

    learner: Learner
    ema: Network
    step: Tensor


def _single(
    player: Player, loss: Loss, decay: float | Tensor, sees: tuple[str, ...], start: Network | None = None
) -> Method:
    """A method that trains one network on a loss of what it `sees`, from `start` where it is given."""

    def init(key: Key) -> SingleState:
        if start is None:
            learner = new_learner(player, key)
        else:
            learner = Learner(start.params, start.buffers, player.optimizer.init(start.params))
        step = torch.zeros((), dtype=torch.int64, device=next(iter(learner.params.values())).device)
        return SingleState(learner, Network(learner.params, learner.buffers), step)

    def step(state: SingleState, batch: Batch, key: Key) -> tuple[SingleState, dict[str, Tensor]]:
        learner = state.learner
        _, (buffers, metrics), grads = autodiff.value_and_grad(
            lambda params: loss(params, learner.buffers, state.step, batch, key), learner.params
        )
        learner = apply_gradient(player.optimizer, learner, grads, buffers)
        return SingleState(learner, average(state.ema, learner, state.step, decay), state.step + 1), metrics

    def networks(state: SingleState) -> dict[str, Network]:
        return {"model": Network(state.learner.params, state.learner.buffers), "ema": state.ema}

    return Method(init, step, networks, sees)


def supervised(player: Player, augment: Augment, recipe: Recipe, start: Network | None = None) -> Method:
    """Supervised learning on the labelled batch; with `recipe.uda_weight` > 0 it is UDA (Xie et al., NeurIPS 2020).

    It is the teacher's own loss without feedback. From a `start`, it is the final finetuning of Meta Pseudo Labels.
    """
    seen = ("labelled", "weak", "strong") if recipe.consistent else ("labelled",)

    def loss(
        params: Params, buffers: Buffers, step: Tensor, batch: Batch, key: Key
    ) -> tuple[Tensor, tuple[Buffers, dict[str, Tensor]]]:
        view_key, model_key = rng.split(key, 2)
        x = views(seen, augment, batch, view_key)
        logits, buffers = forward(player.model, params, buffers, x, model_key)
        total, parts = self_loss(recipe, logits, batch.y_labelled, step)
        return total, (buffers, parts)

    sees = ("x_labelled", "x_unlabelled") if recipe.consistent else ("x_labelled",)
    return _single(player, loss, recipe.ema, sees, start)


class Fixed(NamedTuple):
    """A teacher that no longer learns, and how it labels."""

    model: Model
    network: Network
    labels: Labels


def pseudo_labels(player: Player, teacher: Fixed, augment: Augment, recipe: Recipe) -> Method:
    """Pseudo labels from a fixed teacher: it labels the weak view, the student learns them on the strong one."""

    def loss(
        params: Params, buffers: Buffers, step: Tensor, batch: Batch, key: Key
    ) -> tuple[Tensor, tuple[Buffers, dict[str, Tensor]]]:
        del step
        weak_key, strong_key, label_key, model_key, shared_key = rng.split(key, 5)
        shared = augment.shared(batch.x_unlabelled, shared_key)
        with torch.no_grad():
            weak = augment.prepare(augment.weak(shared, weak_key))
            targets = teacher.labels.teach(teacher.model.apply(*teacher.network, weak, train=False)[0], label_key)
        x = augment.prepare(augment.strong(shared, strong_key))
        logits, buffers = player.model.apply(params, buffers, x, train=True, key=model_key)
        total = losses.cross_entropy(logits, targets, recipe.smoothing).mean()
        return total, (buffers, {"student": total.detach()})

    return _single(player, loss, recipe.ema, ("x_unlabelled",))
