"""LARS."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, Params, PyTree, Rule
from metapl.optim import parts, schedule
from metapl.optim.by_leaf import by_leaf


class LarsState(NamedTuple):
    """`step`: updates taken, int64 scalar. `momentum`: shaped as the parameters."""

    step: Tensor
    momentum: PyTree


@by_leaf
def lars(
    lr: schedule.Rate,
    *,
    momentum: float | Tensor = 0.9,
    weight_decay: float | Tensor = 0.0,
    trust_coefficient: float | Tensor = 1e-3,
    nesterov: bool = False,
    maximize: bool = False,
) -> Optimizer:
    """LARS: SGD with a learning rate for each tensor (You, Gitman and Ginsburg, 2017, algorithm 1).

    λ = trust_coefficient · |p| / (|g| + weight_decay · |p|);  s = lr · λ · (g + weight_decay · p);
    b ← momentum · b + s;  update = −(s + momentum · b) with Nesterov, −b without.
    λ is 1 where |p| or the denominator is zero. The learning rate is inside the momentum, unlike in `sgd`: a step
    remembers the rate that it was taken with.
    """

    def init(params: Params) -> LarsState:
        return LarsState(parts.counter(params), tree.zeros_like(params))

    def update(grads: Params, state: LarsState, params: Params) -> tuple[Params, LarsState]:
        rate = schedule.at(lr, state.step)

        def one(grad: Tensor, param: Tensor, buffer: Tensor) -> tuple[Tensor, ...]:
            grad = -grad if maximize else grad
            size, slope = tree.norm(param), tree.norm(grad)
            ratio = parts.trust(trust_coefficient * size, slope + weight_decay * size)
            scaled = rate * ratio * parts.descent(grad, param, weight_decay, maximize=False)
            buffer = momentum * buffer + scaled
            return -(scaled + momentum * buffer if nesterov else buffer), buffer

        updates, buffers = parts.each(one, 2, grads, params, state.momentum)
        return updates, LarsState(state.step + 1, buffers)

    options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust_coefficient": trust_coefficient}
    return Optimizer(init, update, Rule("lars", {**options, "nesterov": nesterov, "maximize": maximize}))
