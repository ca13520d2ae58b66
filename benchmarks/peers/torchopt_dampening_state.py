"""SGD in TorchOpt remembers in the optimiser itself that its first, undampened step is over.

A second run with the same optimiser and a fresh state is dampened from the start, and so comes out differently.
"""

from __future__ import annotations

from typing import Any

import torch
from common import load, row, show

from metapl import optim

torchopt = load("torchopt", "torchopt")


def measure() -> dict[str, Any]:
    """The first update of a second run, for a gradient of 1: torch.optim takes the first gradient undampened."""
    lr, momentum, dampening = 0.1, 0.9, 0.5
    weight, grad = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    theirs = torchopt.sgd(lr, momentum=momentum, dampening=dampening)
    ours, params = optim.sgd(lr, momentum=momentum, dampening=dampening), {"w": weight}
    for _ in range(2):  # two runs of one step, each with a fresh state
        found, _ = theirs.update((grad,), theirs.init((weight,)), params=(weight,), inplace=False)
        metapl, _ = ours.update({"w": grad}, ours.init(params), params)
    return row(
        "torchopt",
        "SGD with dampening: a run depends on the run before",
        "first step of the second run",
        found=found[0].item(),
        expected=-lr * 1.0,
        metapl=metapl["w"].item(),
    )


if __name__ == "__main__":
    show(measure())
