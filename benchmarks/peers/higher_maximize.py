"""`higher` takes no notice of `maximize=True`: it descends where torch.optim climbs, without a word."""

from __future__ import annotations

from typing import Any

import torch
from common import PHI, difference, higher_exam, metapl_exam, row, show, slope, torch_exam

from metapl import optim

SETTING = {"lr": 0.3, "maximize": True}


def sgd(params: Any) -> torch.optim.Optimizer:
    """The optimiser that `higher` is asked to make differentiable."""
    return torch.optim.SGD(params, **SETTING)


def measure() -> dict[str, Any]:
    """The meta-gradient through three steps."""
    return row(
        "higher",
        "`maximize=True` is ignored",
        "meta-gradient",
        found=slope(lambda phi: higher_exam(sgd, phi)),
        expected=difference(lambda phi: torch_exam(sgd, phi), PHI),
        metapl=slope(lambda phi: metapl_exam(optim.sgd(**SETTING), phi)),
    )


if __name__ == "__main__":
    show(measure())
