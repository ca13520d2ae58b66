"""Lion."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, Params, PyTree, Rule
from metapl.optim import parts, schedule
from metapl.optim.by_leaf import by_leaf


class LionState(NamedTuple):
    """`step`: updates taken, int64 scalar. `mean`: shaped as the parameters."""

    step: Tensor
    mean: PyTree


@by_leaf
def lion(
    lr: schedule.Rate = 1e-4,
    *,
    betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.99),
    weight_decay: float | Tensor = 0.0,
    maximize: bool = False,
) -> Optimizer:
    """Lion (Chen et al., NeurIPS 2023, algorithm 2).

    update = −lr (sign(β₁ m + (1 − β₁) g) + weight_decay · p);  m ← β₂ m + (1 − β₂) g.

    The derivative of the sign is zero almost everywhere. So a meta-gradient with respect to the gradients, and with
    it to whatever made them (labels, the examples' weights), or with respect to the betas, is exactly
    zero: only `lr` and `weight_decay` can be meta-learned through Lion.
    """
    beta1, beta2 = betas

    def init(params: Params) -> LionState:
        return LionState(parts.counter(params), tree.zeros_like(params))

    def update(grads: Params, state: LionState, params: Params) -> tuple[Params, LionState]:
        rate = schedule.at(lr, state.step)

        def one(grad: Tensor, param: Tensor, mean: Tensor) -> tuple[Tensor, ...]:
            grad = -grad if maximize else grad
            direction = torch.sign(parts.average(mean, grad, beta1))
            direction = direction + weight_decay * param if parts.at_work(weight_decay) else direction
            return -rate * direction, parts.average(mean, grad, beta2)

        updates, mean = parts.each(one, 2, grads, params, state.mean)
        return updates, LionState(state.step + 1, mean)

    options = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
    return Optimizer(init, update, Rule("lion", options))
