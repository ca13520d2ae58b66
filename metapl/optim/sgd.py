"""Stochastic gradient descent."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, Params, PyTree, Rule
from metapl.optim import parts, schedule
from metapl.optim.by_leaf import by_leaf


class SgdState(NamedTuple):
    """`step`: updates taken, int64 scalar. `momentum`: shaped as the parameters, or `()` without momentum."""

    step: Tensor
    momentum: PyTree


@by_leaf
def sgd(
    lr: schedule.Rate,
    *,
    momentum: float | Tensor = 0.0,
    dampening: float | Tensor = 0.0,
    weight_decay: float | Tensor = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> Optimizer:
    """SGD with momentum, equal to `torch.optim.SGD`.

    g ← ±grad + weight_decay · p;  b ← momentum · b + (1 − dampening) g, undampened at the first step;
    update = −lr (g + momentum · b) with Nesterov, −lr b without.

    Every step is a part of the graph, the first momentum included: `torch.optim.SGD(differentiable=True)` detaches
    that one, and its three-step meta-gradient is off by 48 %.

    Raises:
        ValueError: Nesterov without momentum, or with dampening, as torch does.
    """
    with_momentum, dampened = parts.at_work(momentum), parts.at_work(dampening)
    if nesterov and (not with_momentum or dampened):
        raise ValueError("sgd(nesterov=True) needs momentum and zero dampening")

    def init(params: Params) -> SgdState:
        return SgdState(parts.counter(params), tree.zeros_like(params) if with_momentum else ())

    def update(grads: Params, state: SgdState, params: Params) -> tuple[Params, SgdState]:
        rate = schedule.at(lr, state.step)

        def one(grad: Tensor, param: Tensor, buffer: Tensor | None = None) -> tuple[Tensor, ...]:
            grad = parts.descent(grad, param, weight_decay, maximize=maximize)
            if buffer is None:
                return (-rate * grad,)
            fresh = torch.where(state.step == 0, grad, (1.0 - dampening) * grad) if dampened else grad
            buffer = momentum * buffer + fresh
            direction = grad + momentum * buffer if nesterov else buffer
            return -rate * direction, buffer

        if not with_momentum:
            (updates,) = parts.each(one, 1, grads, params)
            return updates, SgdState(state.step + 1, ())
        updates, buffers = parts.each(one, 2, grads, params, state.momentum)
        return updates, SgdState(state.step + 1, buffers)

    options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
    return Optimizer(init, update, Rule("sgd", {**options, "nesterov": nesterov, "maximize": maximize}))
