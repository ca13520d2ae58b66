"""`torch.optim.Adam(differentiable=True)` computes the bias correction in float32, whatever the parameters are.

Its step count is a float32 tensor, and 1 − 0.999 has four digits there. Without `differentiable` the count becomes a
number first.
"""

from __future__ import annotations

from typing import Any

import torch
from common import PHI, difference, differentiable_exam, metapl_exam, row, show, slope, torch_exam

from metapl import optim

SETTING = {"lr": 0.05}


def measure() -> dict[str, Any]:
    """The meta-gradient through three steps."""

    def adam(params: Any, differentiable: bool = False) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, differentiable=differentiable, **SETTING)

    return row(
        "torch",
        "`Adam(differentiable=True)` corrects its bias in float32",
        "meta-gradient",
        found=slope(lambda phi: differentiable_exam(lambda params: adam(params, differentiable=True), phi)),
        expected=difference(lambda phi: torch_exam(adam, phi), PHI),
        metapl=slope(lambda phi: metapl_exam(optim.adam(**SETTING), phi)),
    )


if __name__ == "__main__":
    show(measure())
