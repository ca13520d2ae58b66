"""LAMB."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, Params, PyTree, Rule
from metapl.optim import parts, schedule
from metapl.optim.by_leaf import by_leaf


class LambState(NamedTuple):
    """`step`: updates taken, int64 scalar. The moments: shaped as the parameters."""

    step: Tensor
    mean: PyTree
    square: PyTree


@by_leaf
def lamb(
    lr: schedule.Rate = 1e-3,
    *,
    betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
    eps: float | Tensor = 1e-6,
    weight_decay: float | Tensor = 1e-2,
    maximize: bool = False,
) -> Optimizer:
    """LAMB: Adam with a trust ratio for each tensor (You et al., ICLR 2020, algorithm 2).

    m and v as in Adam;  r = (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + eps) + weight_decay · p;
    update = −lr · |p| / |r| · r. The ratio is 1 where either norm is zero.
    """
    beta1, beta2 = betas

    def init(params: Params) -> LambState:
        return LambState(parts.counter(params), tree.zeros_like(params), tree.zeros_like(params))

    def update(grads: Params, state: LambState, params: Params) -> tuple[Params, LambState]:
        rate = schedule.at(lr, state.step)
        step = state.step + 1

        def one(grad: Tensor, param: Tensor, mean: Tensor, square: Tensor) -> tuple[Tensor, ...]:
            grad = -grad if maximize else grad
            mean = parts.average(mean, grad, beta1)
            square = parts.average(square, grad * grad, beta2)
            root = tree.safe_sqrt(square / parts.bias_correction(beta2, step, param.dtype)) + eps
            ratio = mean / parts.bias_correction(beta1, step, param.dtype) / root
            ratio = ratio + weight_decay * param if parts.at_work(weight_decay) else ratio
            return -rate * parts.trust(tree.norm(param), tree.norm(ratio)) * ratio, mean, square

        updates, mean, square = parts.each(one, 3, grads, params, state.mean, state.square)
        return updates, LambState(step, mean, square)

    options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
    return Optimizer(init, update, Rule("lamb", options))
