"""One network trained on its own, on a loss of what it sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from metapl.core import autodiff
from metapl.core.types import Buffers, Key, Params, TrainState, Variables
from metapl.data.loader import Batch
from metapl.methods.base import Method, Trainable, apply_gradient, average, new_train_state

Loss: TypeAlias = Callable[[Params, Buffers, Tensor, Batch, Key], tuple[Tensor, tuple[Buffers, dict[str, Tensor]]]]
"""`loss(params, buffers, step, batch, key)`: a scalar, the buffers after the pass and scalars worth logging."""


class SingleState(NamedTuple):
    """Everything that changes while one network trains alone."""

    train_state: TrainState
    ema: Variables
    step: Tensor


def single(
    trainable: Trainable, loss: Loss, decay: float | Tensor, sees: tuple[str, ...], start: Variables | None = None
) -> Method:
    """A method that trains one network, and averages its weights.

    Args:
        trainable: the network and its optimiser.
        loss: what is minimised.
        decay: of the moving average of the weights.
        sees: the fields of the batch that the loss looks at.
        start: weights to start from, in place of fresh ones.

    Returns:
        A method with the networks "model" and "ema".
    """

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
