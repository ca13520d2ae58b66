"""Adadelta."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, Params, PyTree, Rule
from metapl.optim import parts, schedule
from metapl.optim.by_leaf import by_leaf


class AdadeltaState(NamedTuple):
    """`step`: updates taken, int64 scalar. Mean squares of gradients and of changes, shaped as the parameters."""

    step: Tensor
    square: PyTree
    change: PyTree


@by_leaf
def adadelta(
    lr: schedule.Rate = 1.0,
    *,
    rho: float | Tensor = 0.9,
    eps: float | Tensor = 1e-6,
    weight_decay: float | Tensor = 0.0,
    maximize: bool = False,
) -> Optimizer:
    """Adadelta (Zeiler, 2012), equal to `torch.optim.Adadelta`.

    v ← ρ v + (1 − ρ) g²;  d = g √(u + eps) / √(v + eps);  u ← ρ u + (1 − ρ) d²;  update = −lr d.
    """

    def init(params: Params) -> AdadeltaState:
        return AdadeltaState(parts.counter(params), tree.zeros_like(params), tree.zeros_like(params))

    def update(grads: Params, state: AdadeltaState, params: Params) -> tuple[Params, AdadeltaState]:
        rate = schedule.at(lr, state.step)

        def one(grad: Tensor, param: Tensor, square: Tensor, change: Tensor) -> tuple[Tensor, ...]:
            grad = parts.descent(grad, param, weight_decay, maximize=maximize)
            square = parts.average(square, grad * grad, rho)
            delta = grad * tree.safe_sqrt(change + eps) / tree.safe_sqrt(square + eps)
            return -rate * delta, square, parts.average(change, delta * delta, rho)

        updates, square, change = parts.each(one, 3, grads, params, state.square, state.change)
        return updates, AdadeltaState(state.step + 1, square, change)

    options = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
    return Optimizer(init, update, Rule("adadelta", options))
