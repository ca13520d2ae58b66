"""Adam in `higher` adds eps to the square root before the bias correction; torch.optim and the paper add it after.

In the first steps √v is far smaller than |g|, so that an eps that should not matter does.
"""

from __future__ import annotations

from typing import Any

import torch
from common import PHI, difference, higher_exam, metapl_exam, row, show, slope, torch_exam

from metapl import optim

SETTING = {"lr": 0.05, "eps": 1e-3}


def adam(params: Any) -> torch.optim.Optimizer:
    """The optimiser that `higher` is asked to make differentiable."""
    return torch.optim.Adam(params, **SETTING)


def measure() -> dict[str, Any]:
    """The meta-gradient through three steps."""
    return row(
        "higher",
        "Adam adds eps before the bias correction",
        "meta-gradient",
        found=slope(lambda phi: higher_exam(adam, phi)),
        expected=difference(lambda phi: torch_exam(adam, phi), PHI),
        metapl=slope(lambda phi: metapl_exam(optim.adam(**SETTING), phi)),
    )


if __name__ == "__main__":
    show(measure())
