"""`zero_order(method="antithetic")` in TorchOpt is right: it divides by sigma.

The noise here is ±1 in turn, so that two samples are all there are and the estimate has no variance.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from common import load, row, show
from torch import Tensor

zero_order = load("torchopt.diff.zero_order", "torchopt").zero_order


def measure() -> dict[str, Any]:
    """The derivative of x² / 2 at 1."""
    signs = itertools.cycle([1.0, -1.0])

    def noise(shape: torch.Size) -> Tensor:
        return torch.full(shape, next(signs), dtype=torch.float64)

    @zero_order(distribution=noise, method="antithetic", argnums=0, num_samples=2, sigma=0.1)
    def parabola(x: Tensor) -> Tensor:
        return 0.5 * x.square().sum()

    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    return row(
        "torchopt",
        '`zero_order(method="antithetic")`',
        "derivative of x² / 2 at 1",
        found=torch.autograd.grad(parabola(x), x)[0].item(),
        expected=1.0,
    )


if __name__ == "__main__":
    show(measure())
