"""`torch.optim.SGD(differentiable=True)` without momentum is right, if every step gets a copy of the weights."""

from __future__ import annotations

from typing import Any

import torch
from common import PHI, difference, differentiable_exam, metapl_exam, row, show, slope, torch_exam

from metapl import optim

SETTING = {"lr": 0.3, "weight_decay": 0.1}


def measure() -> dict[str, Any]:
    """The meta-gradient through three steps."""

    def sgd(params: Any, differentiable: bool = False) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, differentiable=differentiable, **SETTING)

    return row(
        "torch",
        "`SGD(differentiable=True)` without momentum",
        "meta-gradient",
        found=slope(lambda phi: differentiable_exam(lambda params: sgd(params, differentiable=True), phi)),
        expected=difference(lambda phi: torch_exam(sgd, phi), PHI),
        metapl=slope(lambda phi: metapl_exam(optim.sgd(**SETTING), phi)),
    )


if __name__ == "__main__":
    show(measure())
