"""`higher` takes no notice of Adam's `decoupled_weight_decay=True`: it adds the decay to the gradient all the same."""

from __future__ import annotations

from typing import Any

import torch
from common import PHI, difference, higher_exam, metapl_exam, row, show, slope, torch_exam

from metapl import optim

# A small eps, and so many times smaller than √v, keeps the other defect of its Adam out of this figure.
SETTING = {"lr": 0.05, "weight_decay": 0.1, "eps": 1e-14}


def adam(params: Any) -> torch.optim.Optimizer:
    """The optimiser that `higher` is asked to make differentiable."""
    return torch.optim.Adam(params, decoupled_weight_decay=True, **SETTING)


def measure() -> dict[str, Any]:
    """The meta-gradient through three steps."""
    return row(
        "higher",
        "`Adam(decoupled_weight_decay=True)` is ignored",
        "meta-gradient",
        found=slope(lambda phi: higher_exam(adam, phi)),
        expected=difference(lambda phi: torch_exam(adam, phi), PHI),
        metapl=slope(lambda phi: metapl_exam(optim.adamw(**SETTING), phi)),
    )


if __name__ == "__main__":
    show(measure())
