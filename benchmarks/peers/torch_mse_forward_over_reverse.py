"""`jvp` of the gradient of `F.mse_loss`, which is forward over reverse, raises; the loss written out does not."""

from __future__ import annotations

from typing import Any

import torch
from common import row, show
from torch.nn import functional as F  # noqa: N812 - torch's own convention


def measure() -> dict[str, Any]:
    """The first entry of the Hessian of a mean of three squares times (1, 1, 1)."""
    at, target = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    found: float | Exception
    try:
        gradient = torch.func.grad(lambda x: F.mse_loss(x, target))
        found = torch.func.jvp(gradient, (at,), (torch.ones_like(at),))[1][0].item()
    except RuntimeError as error:
        found = error
    return row(
        "torch",
        "`jvp` of the gradient of `F.mse_loss` raises",
        "Hessian times a vector",
        found=found,
        expected=2 / 3,
    )


if __name__ == "__main__":
    show(measure())
