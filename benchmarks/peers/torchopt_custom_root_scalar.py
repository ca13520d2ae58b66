"""`custom_root` in TorchOpt gives a gradient of zero for a solution that is a scalar; a vector of one is right."""

from __future__ import annotations

from typing import Any

import torch
from common import load, row, show
from torch import Tensor

custom_root = load("torchopt.diff.implicit", "torchopt").custom_root


@custom_root(lambda z, phi: z - 3 * phi, argnums=1)
def solve(z: Tensor, phi: Tensor) -> Tensor:  # noqa: ARG001 - where a solver would start from
    """The root of z − 3 φ."""
    return 3 * phi.detach()


def measure() -> dict[str, Any]:
    """The derivative of the root with respect to φ."""
    phi = torch.ones((), dtype=torch.float64, requires_grad=True)
    root = solve(torch.zeros((), dtype=torch.float64), phi)
    return row(
        "torchopt",
        "`custom_root` gives zero for a scalar solution",
        "d (3 φ) / d φ",
        found=torch.autograd.grad(root, phi)[0].item(),
        expected=3.0,
    )


if __name__ == "__main__":
    show(measure())
