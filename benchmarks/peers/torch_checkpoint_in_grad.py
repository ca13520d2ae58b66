"""`torch.utils.checkpoint` does not work inside `torch.func.grad`: it cannot save an unrolled loop its memory there."""

from __future__ import annotations

import math
from typing import Any

import torch
from common import row, show
from torch.utils.checkpoint import checkpoint


def measure() -> dict[str, Any]:
    """The derivative of sin at 0.5."""
    at = torch.tensor(0.5, dtype=torch.float64)
    found: float | Exception
    try:
        found = torch.func.grad(lambda x: checkpoint(torch.sin, x, use_reentrant=False))(at).item()
    except RuntimeError as error:
        found = error
    return row(
        "torch",
        "`checkpoint` does not work inside `torch.func.grad`",
        "derivative of sin",
        found=found,
        expected=math.cos(0.5),
    )


if __name__ == "__main__":
    show(measure())
