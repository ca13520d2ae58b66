"""`diff_sgd` in hypergrad detaches the first momentum, as torch.optim does."""

from __future__ import annotations

from typing import Any

import torch
from common import PHI, STEPS, difference, inner, load, metapl_exam, outer, row, show, slope, start, torch_exam
from torch import Tensor

from metapl import optim

diff_sgd = load("hypergrad.optimizers", "hypergrad").diff_sgd
SETTING = {"lr": 0.1, "momentum": 0.9}


def outer_batch(phi: Tensor) -> Tensor:
    """The exam after a few steps by hypergrad."""
    weights, state = [start().requires_grad_()], None
    for _ in range(STEPS):
        grads = torch.autograd.grad(inner(weights[0], phi), weights, create_graph=True)
        weights, state = diff_sgd(list(weights), grads, state, weight_decay=0.0, **SETTING)
    return outer(weights[0])


def measure() -> dict[str, Any]:
    """The meta-gradient through three steps."""
    return row(
        "hypergrad",
        "`diff_sgd` detaches the first momentum",
        "meta-gradient",
        found=slope(outer_batch),
        expected=difference(lambda phi: torch_exam(lambda w: torch.optim.SGD(w, **SETTING), phi), PHI),
        metapl=slope(lambda phi: metapl_exam(optim.sgd(**SETTING), phi)),
    )


if __name__ == "__main__":
    show(measure())
