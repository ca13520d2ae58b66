"""RMSprop by `higher`, not centred, is right where a gradient is exactly zero: a mask takes care of √v at v = 0."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from common import DEAD, PHI, difference, higher_exam, metapl_exam, row, show, slope, torch_exam

from metapl import optim

SETTING = {"lr": 0.05}


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
        "RMSprop where a gradient is exactly zero",
        "meta-gradient",
        found=found,
        expected=difference(lambda phi: torch_exam(rmsprop, phi, DEAD), PHI),
        metapl=slope(lambda phi: metapl_exam(optim.rmsprop(**SETTING), phi, DEAD)),
    )


if __name__ == "__main__":
    show(measure())
