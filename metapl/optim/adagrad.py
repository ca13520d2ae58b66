"""Adagrad."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, Params, PyTree, Rule
from metapl.optim import parts, schedule
from metapl.optim.by_leaf import by_leaf


class AdagradState(NamedTuple):
    """`step`: updates taken, int64 scalar. `total`: the sum of squares so far, shaped as the parameters."""

    step: Tensor
    total: PyTree


@by_leaf
def adagrad(
    lr: schedule.Rate = 1e-2,
    *,
    lr_decay: float | Tensor = 0.0,
    weight_decay: float | Tensor = 0.0,
    initial_accumulator_value: float | Tensor = 0.0,
    eps: float | Tensor = 1e-10,
    maximize: bool = False,
) -> Optimizer:
    """Adagrad (Duchi, Hazan and Singer, JMLR 2011), equal to `torch.optim.Adagrad`.

    s ← s + g², from `initial_accumulator_value`;  update = −lr / (1 + (t − 1) lr_decay) · g / (√s + eps).
    The gradient with respect to `initial_accumulator_value` flows by way of `init`.
    """

    def init(params: Params) -> AdagradState:
        (total,) = parts.each(lambda zero, _: (zero + initial_accumulator_value,), 1, tree.zeros_like(params), params)
        return AdagradState(parts.counter(params), total)

    def update(grads: Params, state: AdagradState, params: Params) -> tuple[Params, AdagradState]:
        rate = schedule.at(lr, state.step) / (1.0 + state.step.to(torch.float64) * lr_decay)

        def one(grad: Tensor, param: Tensor, total: Tensor) -> tuple[Tensor, ...]:
            grad = parts.descent(grad, param, weight_decay, maximize=maximize)
            total = total + grad * grad
            return -rate * grad / (tree.safe_sqrt(total) + eps), total

        updates, total = parts.each(one, 2, grads, params, state.total)
        return updates, AdagradState(state.step + 1, total)

    options = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps, "maximize": maximize}
    options["initial_accumulator_value"] = initial_accumulator_value
    return Optimizer(init, update, Rule("adagrad", options))
