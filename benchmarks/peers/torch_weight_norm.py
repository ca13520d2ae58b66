"""The double backward of `torch._weight_norm`, which `parametrizations.weight_norm` calls, is wrong.

Its first derivative is right, so the right second derivative is a finite difference of it.
"""

from __future__ import annotations

from typing import Any

import torch
from common import difference, row, show
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from metapl.nn import functional


def gradient(shift: float | Tensor) -> Tensor:
    """The first derivative of a loss with respect to one direction, its first entry shifted."""
    direction = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    length = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    moved = direction + shift * torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    loss = torch._weight_norm(moved, length, 0).pow(3).sum()
    return torch.autograd.grad(loss, direction, create_graph=True)[0][0, 1]


def in_a_model(shift: Tensor) -> Tensor:
    """The same of a layer with weight normalisation, as a model: fed the identity, it returns its weight."""
    model = functional.from_module(lambda: parametrizations.weight_norm(nn.Linear(3, 1, bias=False)).double())
    direction = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    moved = direction + shift * torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    names = [f"parametrizations.weight.original{index}" for index in (0, 1)]
    params = dict(zip(names, (torch.ones(1, 1, dtype=torch.float64), moved), strict=True))
    weight, _ = model.apply(params, {}, torch.eye(3, dtype=torch.float64), train=True)
    return torch.autograd.grad(weight.pow(3).sum(), direction, create_graph=True)[0][0, 1]


def measure() -> dict[str, Any]:
    """One entry of the Hessian, that of the first and the second weight."""
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    return row(
        "torch",
        "`weight_norm` has a wrong double backward",
        "entry of a Hessian",
        found=torch.autograd.grad(gradient(shift), shift)[0].item(),
        expected=difference(lambda shift: gradient(shift).item(), 0.0),
        metapl=torch.autograd.grad(in_a_model(shift), shift)[0].item(),
    )


if __name__ == "__main__":
    show(measure())
