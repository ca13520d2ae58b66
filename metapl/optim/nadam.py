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
    penalty = 0.0 if decoupled_weight_decay else weight_decay

    def init(params: Params) -> NadamState:
        step = parts.counter(params)
        product = torch.ones((), dtype=torch.float64, device=step.device)
        return NadamState(step, tree.zeros_like(params), tree.zeros_like(params), product)

    def update(grads: Params, state: NadamState, params: Params) -> tuple[Params, NadamState]:
        rate = schedule.at(lr, state.step)
        step = state.step + 1
        times = step.to(torch.float64), step.to(torch.float64) + 1.0
        now, after = (parts.wide(beta1, step) * (1.0 - 0.5 * 0.96 ** (t * momentum_decay)) for t in times)
        product = state.product * now.to(state.product.dtype)
        # Scalars stay in float64 up to here: 1 − μ₁…μₜ cancels as the bias corrections do.
        of_grad = rate * (1.0 - now) / (1.0 - product.to(torch.float64))
        of_mean = rate * after / (1.0 - product.to(torch.float64) * after)

        def one(grad: Tensor, param: Tensor, mean: Tensor, square: Tensor) -> tuple[Tensor, ...]:
            grad = parts.descent(grad, param, penalty, maximize=maximize)
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
