"""SGD with Nesterov momentum by TorchOpt is right."""

from __future__ import annotations

from typing import Any

import torch
from common import PHI, STEPS, difference, inner, load, metapl_exam, outer, row, show, slope, start, torch_exam
from torch import Tensor

from metapl import optim

torchopt = load("torchopt", "torchopt")
SETTING = {"lr": 0.1, "momentum": 0.9, "nesterov": True}


def outer_batch(phi: Tensor) -> Tensor:
    """The exam after a few steps by TorchOpt."""
    weights = (start().requires_grad_(),)
    sgd = torchopt.sgd(**SETTING)
    state = sgd.init(weights)
    for _ in range(STEPS):
        grads = torch.autograd.grad(inner(weights[0], phi), weights, create_graph=True)
        updates, state = sgd.update(grads, state, params=weights, inplace=False)
        weights = torchopt.apply_updates(weights, updates, inplace=False)
    return outer(weights[0])


def measure() -> dict[str, Any]:
    """The meta-gradient through three steps."""
    return row(
        "torchopt",
        "SGD with Nesterov momentum",
        "meta-gradient",
        found=slope(outer_batch),
        expected=difference(lambda phi: torch_exam(lambda w: torch.optim.SGD(w, **SETTING), phi), PHI),
        metapl=slope(lambda phi: metapl_exam(optim.sgd(**SETTING), phi)),
    )


if __name__ == "__main__":
    show(measure())
