"""RAdam."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, Params, PyTree, Rule
from metapl.optim import parts, schedule
from metapl.optim.by_leaf import by_leaf


class RadamState(NamedTuple):
    """`step`: updates taken, int64 scalar. The moments: shaped as the parameters."""

    step: Tensor
    mean: PyTree
    square: PyTree


def _rectification(beta2: float | Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the variance is tractable at this step, and r √(1 − β₂ᵗ), in float64."""
    beta, t = parts.wide(beta2, step), step.to(torch.float64)
    correction = 1.0 - beta**t
    longest = 2.0 / (1.0 - beta) - 1.0
    length = longest - 2.0 * t * beta**t / correction
    rectified = length > 5.0
    # Kept away from the root of a negative number and from ρ∞ = 4: neither is selected, but its NaN would be felt.
    inner, outer = (torch.where(rectified, value, torch.full_like(value, 6.0)) for value in (length, longest))
    ratio = (inner - 4.0) * (inner - 2.0) * outer / ((outer - 4.0) * (outer - 2.0) * inner)
    return rectified, torch.sqrt(ratio * correction)


@by_leaf
def radam(
    lr: schedule.Rate = 1e-3,
    *,
    betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> Optimizer:
    """Rectified Adam (Liu et al., ICLR 2020), equal to `torch.optim.RAdam`.

    ρ∞ = 2 / (1 − β₂) − 1;  ρₜ = ρ∞ − 2t β₂ᵗ / (1 − β₂ᵗ);  m and v as in Adam.
    While ρₜ <= 5, which is at least the first five steps: update = −lr m / (1 − β₁ᵗ). After that, with
    r² = (ρₜ − 4)(ρₜ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρₜ):
    update = −lr · r · m / (1 − β₁ᵗ) · √(1 − β₂ᵗ) / (√v + eps).
    """
    beta1, beta2 = betas
    penalty = 0.0 if decoupled_weight_decay else weight_decay

    def init(params: Params) -> RadamState:
        return RadamState(parts.counter(params), tree.zeros_like(params), tree.zeros_like(params))

    def update(grads: Params, state: RadamState, params: Params) -> tuple[Params, RadamState]:
        rate = schedule.at(lr, state.step)
        step = state.step + 1
        rectified, factor = _rectification(beta2, step)

        def one(grad: Tensor, param: Tensor, mean: Tensor, square: Tensor) -> tuple[Tensor, ...]:
            grad = parts.descent(grad, param, penalty, maximize=maximize)
            mean = parts.average(mean, grad, beta1)
            square = parts.average(square, grad * grad, beta2)
            root = torch.where(rectified, tree.safe_sqrt(square) + eps, torch.ones_like(square))
            adapted = torch.where(rectified, factor.to(param.dtype) / root, torch.ones_like(square))
            update = -rate * (mean / parts.bias_correction(beta1, step, param.dtype)) * adapted
            if decoupled_weight_decay and parts.at_work(weight_decay):
                update = update - rate * weight_decay * param
            return update, mean, square

        updates, mean, square = parts.each(one, 3, grads, params, state.mean, state.square)
        return updates, RadamState(step, mean, square)

    options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
    return Optimizer(init, update, Rule("radam", {**options, "decoupled_weight_decay": decoupled_weight_decay}))
