"""Centred RMSprop in `higher` differentiates √(v − m²) where v = m = 0: infinity times zero is NaN.

One input that is always zero is enough. Without `centered` a mask in `higher` takes care of the same place.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from common import DEAD, PHI, difference, higher_exam, metapl_exam, row, show, slope, torch_exam

from metapl import optim

SETTING = {"lr": 0.05, "centered": True}


def rmsprop(params: Any) -> torch.optim.Optimizer:
    """The optimiser that `higher` is asked to make differentiable."""
    return torch.optim.RMSprop(params, **SETTING)


def measure() -> dict[str, Any]:
    """The meta-gradient through three steps, with an input that is zero in every example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `higher` warns that this optimiser has "correctness issues"
        found = slope(lambda phi: higher_exam(rmsprop, phi, DEAD))
    return row(
        "higher",
        "centred RMSprop: NaN where a gradient is exactly zero",
        "meta-gradient",
        found=found,
        expected=difference(lambda phi: torch_exam(rmsprop, phi, DEAD), PHI),
        metapl=slope(lambda phi: metapl_exam(optim.rmsprop(**SETTING), phi, DEAD)),
    )


if __name__ == "__main__":
    show(measure())
