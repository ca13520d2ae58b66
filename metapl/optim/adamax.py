"""Adamax."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, Params, PyTree, Rule
from metapl.optim import parts, schedule
from metapl.optim.by_leaf import by_leaf


class AdamaxState(NamedTuple):
    """`step`: updates taken, int64 scalar. `mean`, and `largest` as it fades: shaped as the parameters."""

    step: Tensor
    mean: PyTree
    largest: PyTree


@by_leaf
def adamax(
    lr: schedule.Rate = 2e-3,
    *,
    betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 0.0,
    maximize: bool = False,
) -> Optimizer:
    """Adam with the infinity norm (Kingma and Ba, ICLR 2015), equal to `torch.optim.Adamax`.

    m ← β₁ m + (1 − β₁) g;  u ← max(β₂ u, |g| + eps);  update = −lr (m / (1 − β₁ᵗ)) / u.
    `eps` is inside the maximum, as in torch; the paper has none.
    """
    beta1, beta2 = betas

    def init(params: Params) -> AdamaxState:
        return AdamaxState(parts.counter(params), tree.zeros_like(params), tree.zeros_like(params))

    def update(grads: Params, state: AdamaxState, params: Params) -> tuple[Params, AdamaxState]:
        rate = schedule.at(lr, state.step)
        step = state.step + 1

        def one(grad: Tensor, param: Tensor, mean: Tensor, largest: Tensor) -> tuple[Tensor, ...]:
            grad = parts.descent(grad, param, weight_decay, maximize=maximize)
            mean = parts.average(mean, grad, beta1)
            largest = torch.maximum(beta2 * largest, grad.abs() + eps)
            return -rate * (mean / parts.bias_correction(beta1, step, param.dtype)) / largest, mean, largest

        updates, mean, largest = parts.each(one, 3, grads, params, state.mean, state.largest)
        return updates, AdamaxState(step, mean, largest)

    options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
    return Optimizer(init, update, Rule("adamax", options))
