"""Attention takes a kernel on a CPU that has no double backward, so no second-order gradient runs through it.

The `MATH` backend has one; it is slower, and has to be asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from common import difference, row, show
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def gradient(shift: Tensor) -> Tensor:
    """One entry of the first derivative of a loss with respect to the queries, which are shifted."""
    base = torch.sin(torch.arange(12.0, dtype=torch.float64)).reshape(1, 1, 3, 4)
    query = (base + shift).requires_grad_()
    loss = scaled_dot_product_attention(query, base.cos(), base).pow(3).sum()
    return torch.autograd.grad(loss, query, create_graph=True)[0][0, 0, 0, 0]


def measure() -> dict[str, Any]:
    """The derivative of that entry with respect to the shift."""
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    found: float | Exception
    try:
        found = torch.autograd.grad(gradient(shift), shift)[0].item()
    except RuntimeError as error:
        found = error
    with sdpa_kernel(SDPBackend.MATH):
        expected = difference(lambda shift: gradient(torch.tensor(shift, dtype=torch.float64)).item(), 0.0)
    return row(
        "torch",
        "attention on a CPU has no double backward",
        "second derivative",
        found=found,
        expected=expected,
    )


if __name__ == "__main__":
    show(measure())
