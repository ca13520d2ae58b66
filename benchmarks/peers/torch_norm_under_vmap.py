"""The gradient of LayerNorm's weight, taken inside of a `torch.vmap`, has a wrong derivative outside of it.

BatchNorm and InstanceNorm do the same; GroupNorm and RMSNorm do not. The right number is a finite difference of the
same sum taken by a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from common import difference, row, show
from torch import Tensor
from torch.nn.functional import layer_norm

from metapl.core import inside

X = torch.linspace(-1.0, 1.0, 24, dtype=torch.float64).reshape(2, 3, 4).sin()
TARGETS, WEIGHT = (2.0 * X + 0.3).cos(), torch.linspace(0.5, 1.5, 4, dtype=torch.float64)
Gradient = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def length(gradient: Gradient, scale: Tensor, x: Tensor, target: Tensor) -> Tensor:
    """The squared length of the gradient of the weight of a layer that is fed x + scale x²."""
    return gradient(lambda w: (layer_norm(x + scale * x**2, (4,), w, None) * target).sum(), WEIGHT).square().sum()


def over_vmap(gradient: Gradient) -> float:
    """The derivative in the scale of the sum over examples, which are vectorised."""

    def total(scale: Tensor) -> Tensor:
        return torch.vmap(lambda x, target: length(gradient, scale, x, target))(X, TARGETS).sum()

    return torch.func.grad(total)(torch.tensor(0.3, dtype=torch.float64)).item()


def by_loop(scale: float) -> float:
    """The same sum, one example after another."""
    at = torch.tensor(scale, dtype=torch.float64)
    pairs = zip(X, TARGETS, strict=True)
    return sum(length(lambda fn, w: torch.func.grad(fn)(w), at, *pair).item() for pair in pairs)


def measure() -> dict[str, Any]:
    """The derivative of the squared gradients in what feeds the layer."""
    what = "`grad` of `vmap` of `grad` is wrong for `layer_norm`"
    found = over_vmap(lambda fn, w: torch.func.grad(fn)(w))
    ours = over_vmap(lambda fn, w: inside.gradient(fn, w)[0])
    return row("torch", what, "second derivative", found=found, expected=difference(by_loop, 0.3), metapl=ours)


if __name__ == "__main__":
    show(measure())
