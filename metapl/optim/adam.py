"""Adam and AdamW."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metapl import tree
from metapl.optim import schedule
from metapl.types import Optimizer, Params, PyTree


class AdamState(NamedTuple):
    """`step`: updates taken, int64 scalar. The moments: shaped as the parameters; `largest`: `()` without AMSGrad."""

    step: Tensor
    mean: PyTree
    square: PyTree
    largest: PyTree


def _bias_correction(beta: float | Tensor, step: Tensor, dtype: torch.dtype) -> Tensor:
    """1 − beta^step, by way of float64, since 1 − 0.999 in float32 has lost four digits."""
    base = beta.to(torch.float64) if isinstance(beta, Tensor) else beta
    return (1.0 - base ** step.to(torch.float64)).to(dtype)


def _adam(
    lr: schedule.Rate,
    betas: tuple[float | Tensor, float | Tensor],
    eps: float | Tensor,
    weight_decay: float | Tensor,
    options: tuple[bool, bool, bool],
) -> Optimizer:
    beta1, beta2 = betas
    decoupled, amsgrad, maximize = options
    decayed = isinstance(weight_decay, Tensor) or weight_decay != 0.0

    def init(params: Params) -> AdamState:
        device = next(iter(params.values())).device
        zeros = tree.zeros_like(params)
        step = torch.zeros((), dtype=torch.int64, device=device)
        return AdamState(step, zeros, tree.zeros_like(params), tree.zeros_like(params) if amsgrad else ())

    def update(grads: Params, state: AdamState, params: Params) -> tuple[Params, AdamState]:
        rate = schedule.at(lr, state.step)
        step = state.step + 1

        def one(
            grad: Tensor, param: Tensor, mean: Tensor, square: Tensor, largest: Tensor | None = None
        ) -> tuple[Tensor, ...]:
            grad = -grad if maximize else grad
            grad = grad + weight_decay * param if decayed and not decoupled else grad
            mean = beta1 * mean + (1.0 - beta1) * grad
            square = beta2 * square + (1.0 - beta2) * grad * grad
            largest = square if largest is None else torch.maximum(largest, square)
            correction1 = _bias_correction(beta1, step, param.dtype)
            correction2 = _bias_correction(beta2, step, param.dtype)
            update = -rate * (mean / correction1) / (tree.safe_sqrt(largest / correction2) + eps)
            if decayed and decoupled:
                # torch shrinks the parameter first and steps after; the sum is the same.
                update = update - rate * weight_decay * param
            return (update, mean, square, largest) if amsgrad else (update, mean, square)

        rest = (state.largest,) if amsgrad else ()
        results = tree.map_unzip(one, 4 if amsgrad else 3, grads, params, state.mean, state.square, *rest)
        return results[0], AdamState(step, results[1], results[2], results[3] if amsgrad else ())

    return Optimizer(init, update)


def adam(
    lr: schedule.Rate = 1e-3,
    *,
    betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
) -> Optimizer:
    """Adam (Kingma and Ba, ICLR 2015), equal to `torch.optim.Adam`.

    m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  update = −lr (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + eps).
    With AMSGrad v is replaced by its largest value so far. Meta-gradients are finite where a gradient is exactly zero.
    """
    return _adam(lr, betas, eps, weight_decay, (False, amsgrad, maximize))


def adamw(
    lr: schedule.Rate = 1e-3,
    *,
    betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 1e-2,
    amsgrad: bool = False,
    maximize: bool = False,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019), equal to `torch.optim.AdamW`."""
    return _adam(lr, betas, eps, weight_decay, (True, amsgrad, maximize))
