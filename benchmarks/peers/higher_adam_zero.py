"""Adam by `higher` is right where eps is next to nothing; a mask takes care of √v where a gradient is exactly zero."""

from __future__ import annotations

from typing import Any

import torch
from common import DEAD, PHI, difference, higher_exam, metapl_exam, row, show, slope, torch_exam

from metapl import optim

SETTING = {"lr": 0.05, "eps": 1e-14}


def adam(params: Any) -> torch.optim.Optimizer:
    """The optimiser that `higher` is asked to make differentiable."""
    return torch.optim.Adam(params, **SETTING)


def measure() -> dict[str, Any]:
    """The meta-gradient through three steps, with an input that is zero in every example."""
    return row(
        "higher",
        "Adam with eps = 1e-14, and a gradient that is exactly zero",
        "meta-gradient",
        found=slope(lambda phi: higher_exam(adam, phi, DEAD)),
        expected=difference(lambda phi: torch_exam(adam, phi, DEAD), PHI),
        metapl=slope(lambda phi: metapl_exam(optim.adam(**SETTING), phi, DEAD)),
    )


if __name__ == "__main__":
    show(measure())
