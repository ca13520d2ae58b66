"""One network trained on its own, on a loss of what it sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from metapl.core import autodiff
from metapl.core.types import Buffers, Key, Params, PyTree, TrainState, Variables
from metapl.data.loader import Batch
from metapl.methods.base import Method, Trainable, apply_gradient, average, new_train_state


class SingleState(NamedTuple):
    """Everything that changes while one network trains alone."""

    train_state: TrainState
    ema: Variables
    step: Tensor
    memory: PyTree = ()
    """What the loss remembers from step to step."""


class Evaluated(NamedTuple):
    """What a loss gives beside its value."""

    buffers: Buffers
    """Of the network, after the pass."""
    memory: PyTree
    """What the loss remembers for the next step."""
    metrics: dict[str, Tensor]
    """Scalars worth logging."""


Loss: TypeAlias = Callable[[Params, SingleState, Batch, Key], tuple[Tensor, Evaluated]]
"""`loss(params, state, batch, key)`: a scalar, and what comes with it; the parameters are not those of the state."""


def single(
    trainable: Trainable,
    loss: Loss,
    decay: float | Tensor,
    sees: tuple[str, ...],
    start: Variables | None = None,
    remember: Callable[[Tensor], PyTree] = lambda like: (),  # noqa: ARG005
) -> Method:
    """A method that trains one network, and averages its weights.

    Args:
        trainable: the network and its optimiser.
        loss: what is minimised.
        decay: of the moving average of the weights.
        sees: the fields of the batch that the loss looks at.
        start: weights to start from, in place of fresh ones.
        remember: `remember(like)`, what the loss remembers before the first step, on the device of a tensor.

    Returns:
        A method with the networks "model" and "ema".
    """

    def init(key: Key) -> SingleState:
        if start is None:
            train_state = new_train_state(trainable, key)
        else:
            train_state = TrainState(start.params, start.buffers, trainable.optimizer.init(start.params))
        like = next(iter(train_state.params.values()))
        step = torch.zeros((), dtype=torch.int64, device=like.device)
        return SingleState(train_state, Variables(train_state.params, train_state.buffers), step, remember(like))

    def step(state: SingleState, batch: Batch, key: Key) -> tuple[SingleState, dict[str, Tensor]]:
        _, found, grads = autodiff.value_and_grad(
            lambda params: loss(params, state, batch, key), state.train_state.params
        )
        train_state = apply_gradient(trainable.optimizer, state.train_state, grads, found.buffers)
        ema = average(state.ema, train_state, state.step, decay)
        return SingleState(train_state, ema, state.step + 1, found.memory), found.metrics

    def networks(state: SingleState) -> dict[str, Variables]:
        return {"model": Variables(state.train_state.params, state.train_state.buffers), "ema": state.ema}

    return Method(init, step, networks, sees)
