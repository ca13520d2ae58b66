"""Adam and AdamW."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, Params, PyTree, Rule
from metapl.optim import parts, schedule
from metapl.optim.by_leaf import by_leaf


class AdamState(NamedTuple):
    """`step`: updates taken, int64 scalar. The moments: shaped as the parameters; `largest`: `()` without AMSGrad."""

    step: Tensor
    mean: PyTree
    square: PyTree
    largest: PyTree


def _adam(rule: Rule, *, decoupled: bool) -> Optimizer:
    lr, weight_decay, eps = (rule.options[name] for name in ("lr", "weight_decay", "eps"))
    beta1, beta2 = rule.options["betas"]
    amsgrad, maximize = rule.options["amsgrad"], rule.options["maximize"]

    def init(params: Params) -> AdamState:
        largest = tree.zeros_like(params) if amsgrad else ()
        return AdamState(parts.counter(params), tree.zeros_like(params), tree.zeros_like(params), largest)

    def update(grads: Params, state: AdamState, params: Params) -> tuple[Params, AdamState]:
        rate = schedule.at(lr, state.step)
        step = state.step + 1

        def one(
            grad: Tensor, param: Tensor, mean: Tensor, square: Tensor, largest: Tensor | None = None
        ) -> tuple[Tensor, ...]:
            grad = parts.descent(grad, param, 0.0 if decoupled else weight_decay, maximize=maximize)
            mean = parts.average(mean, grad, beta1)
            square = parts.average(square, grad * grad, beta2)
            largest = square if largest is None else torch.maximum(largest, square)
            correction1 = parts.bias_correction(beta1, step, param.dtype)
            correction2 = parts.bias_correction(beta2, step, param.dtype)
            update = -rate * (mean / correction1) / (tree.safe_sqrt(largest / correction2) + eps)
            if decoupled and parts.at_work(weight_decay):
                # torch shrinks the parameter first and steps after; the sum is the same.
                update = update - rate * weight_decay * param
            return update, mean, square, largest

        rest = (state.largest,) if amsgrad else ()
        updates, mean, square, largest = parts.each(one, 4, grads, params, state.mean, state.square, *rest)
        return updates, AdamState(step, mean, square, largest if amsgrad else ())

    return Optimizer(init, update, rule)


@by_leaf
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
    options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    return _adam(Rule("adam", {**options, "amsgrad": amsgrad, "maximize": maximize}), decoupled=False)


@by_leaf
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
    options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    return _adam(Rule("adamw", {**options, "amsgrad": amsgrad, "maximize": maximize}), decoupled=True)
