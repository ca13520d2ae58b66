"""NAdam."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, Params, PyTree, Rule
from metapl.optim import parts, schedule
from metapl.optim.by_leaf import by_leaf


class NadamState(NamedTuple):
    """`step`: updates taken, int64 scalar. The moments: shaped as the parameters. `product`: of all μ, a scalar."""

    step: Tensor
    mean: PyTree
    square: PyTree
    product: Tensor


def _momenta(beta1: float | Tensor, decay: float | Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """μ of this step and of the next, in float64."""
    t = step.to(torch.float64)
    now, after = (parts.wide(beta1, step) * (1.0 - 0.5 * 0.96 ** (time * decay)) for time in (t, t + 1.0))
    return now, after


@by_leaf
def nadam(
    lr: schedule.Rate = 2e-3,
    *,
    betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 0.0,
    momentum_decay: float | Tensor = 4e-3,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> Optimizer:
    """Adam with Nesterov momentum (Dozat, 2016), equal to `torch.optim.NAdam`.

    μₜ = β₁ (1 − 0.96^(t · momentum_decay) / 2);  m and v as in Adam;
    update = −lr [(1 − μₜ) g / (1 − μ₁…μₜ) + μₜ₊₁ m / (1 − μ₁…μₜ₊₁)] / (√(v / (1 − β₂ᵗ)) + eps).

    The product of all μ starts in float64. torch keeps it in the default dtype, and with float32 its steps are off by
    about 10⁻⁸; a float32 product in the state is carried on in float32, as torch would.
    """
    beta1, beta2 = betas

    def init(params: Params) -> NadamState:
        step = parts.counter(params)
        one = torch.ones((), dtype=torch.float64, device=step.device)
        return NadamState(step, tree.zeros_like(params), tree.zeros_like(params), one)

    def update(grads: Params, state: NadamState, params: Params) -> tuple[Params, NadamState]:
        rate, step = schedule.at(lr, state.step), state.step + 1
        now, after = _momenta(beta1, momentum_decay, step)
        product = state.product * now.to(state.product.dtype)
        wide = product.to(torch.float64)  # scalars stay so up to here: 1 − μ₁…μₜ cancels as the bias corrections do
        of_grad, of_mean = rate * (1.0 - now) / (1.0 - wide), rate * after / (1.0 - wide * after)

        def one(grad: Tensor, param: Tensor, mean: Tensor, square: Tensor) -> tuple[Tensor, ...]:
            grad = parts.descent(grad, param, 0.0 if decoupled_weight_decay else weight_decay, maximize=maximize)
            mean = parts.average(mean, grad, beta1)
            square = parts.average(square, grad * grad, beta2)
            root = tree.safe_sqrt(square / parts.bias_correction(beta2, step, param.dtype)) + eps
            update = -(of_grad.to(param.dtype) * grad + of_mean.to(param.dtype) * mean) / root
            if decoupled_weight_decay and parts.at_work(weight_decay):
                update = update - rate * weight_decay * param
            return update, mean, square

        updates, mean, square = parts.each(one, 3, grads, params, state.mean, state.square)
        return updates, NadamState(step, mean, square, product)

    options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay}
    switches = {"decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize}
    return Optimizer(init, update, Rule("nadam", {**options, **switches}))
