"""RMSprop."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from metapl.core import tree
from metapl.core.types import Optimizer, Params, PyTree, Rule
from metapl.optim import parts, schedule
from metapl.optim.by_leaf import by_leaf


class RmspropState(NamedTuple):
    """`step`: updates taken, int64 scalar. The rest is shaped as the parameters, or `()` where it has no use."""

    step: Tensor
    square: PyTree
    mean: PyTree
    momentum: PyTree


@by_leaf
def rmsprop(
    lr: schedule.Rate = 1e-2,
    *,
    alpha: float | Tensor = 0.99,
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 0.0,
    momentum: float | Tensor = 0.0,
    centered: bool = False,
    maximize: bool = False,
) -> Optimizer:
    """RMSprop (Tieleman and Hinton, 2012), equal to `torch.optim.RMSprop`.

    v ← α v + (1 − α) g²;  d = g / (√v + eps);  b ← momentum · b + d;  update = −lr b, or −lr d without momentum.
    Centred (Graves, 2013): m ← α m + (1 − α) g, and v − m² under the root. Where rounding makes that negative, the
    root is 0, not NaN as in torch.
    """
    with_momentum = parts.at_work(momentum)

    def init(params: Params) -> RmspropState:
        mean = tree.zeros_like(params) if centered else ()
        buffer = tree.zeros_like(params) if with_momentum else ()
        return RmspropState(parts.counter(params), tree.zeros_like(params), mean, buffer)

    def update(grads: Params, state: RmspropState, params: Params) -> tuple[Params, RmspropState]:
        rate = schedule.at(lr, state.step)

        def one(grad: Tensor, param: Tensor, square: Tensor, mean: Tensor, buffer: Tensor) -> tuple[Tensor, ...]:
            grad = parts.descent(grad, param, weight_decay, maximize=maximize)
            square = parts.average(square, grad * grad, alpha)
            mean = parts.average(mean, grad, alpha) if centered else mean
            direction = grad / (tree.safe_sqrt(square - mean * mean if centered else square) + eps)
            buffer = momentum * buffer + direction if with_momentum else direction
            return -rate * buffer, square, mean, buffer

        # An accumulator that has no use travels as the parameters themselves, which cost nothing, and is dropped.
        moments = (state.square, state.mean if centered else params, state.momentum if with_momentum else params)
        updates, square, mean, buffer = parts.each(one, 4, grads, params, *moments)
        after = RmspropState(state.step + 1, square, mean if centered else (), buffer if with_momentum else ())
        return updates, after

    options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
    return Optimizer(init, update, Rule("rmsprop", {**options, "centered": centered, "maximize": maximize}))
