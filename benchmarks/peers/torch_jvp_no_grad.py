"""`torch.func.jvp` goes through `torch.no_grad`, where reverse mode stops: two derivatives of one function."""

from __future__ import annotations

from typing import Any

import torch
from common import row, show
from torch import Tensor

from metapl.core import forward_mode

AT, ALONG = torch.tensor([3.0, 4.0], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)


def scaled(x: Tensor) -> Tensor:
    """The sum of x over its length, which is to be a constant."""
    with torch.no_grad():
        length = x.norm()
    return (x / length).sum()


def measure() -> dict[str, Any]:
    """The derivative along the first axis: 1 / 5 with the length held."""
    return row(
        "torch",
        "`jvp` does not stop at `torch.no_grad`",
        "directional derivative",
        found=torch.func.jvp(scaled, (AT,), (ALONG,))[1].item(),
        expected=1.0 / 5.0,
        metapl=forward_mode.jvp(scaled, (AT,), (ALONG,))[1].item(),
    )


if __name__ == "__main__":
    show(measure())
