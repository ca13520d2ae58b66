"""`darts` in Betty leaves the weights at its last probe: it moves them back by `add`, without the underscore."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from common import PHI, load, miss, quadratic, row, show

darts = load("betty.hypergradient.darts", "betty-ml").darts


def measure() -> dict[str, Any]:
    """How far the weights are from where they were after a call that should only read them."""
    phi = torch.tensor(PHI, dtype=torch.float64, requires_grad=True)
    z = torch.ones(6, dtype=torch.float64, requires_grad=True)
    before = z.detach().clone()
    upper = SimpleNamespace(trainable_parameters=lambda: [phi])
    lower = SimpleNamespace(  # of a problem the function asks for these only
        cur_batch=None,
        config=SimpleNamespace(darts_alpha=0.01),
        trainable_parameters=lambda: [z],
        training_step_exec=lambda batch: quadratic(z, phi),  # noqa: ARG005 - there is no batch
    )
    darts(torch.autograd.grad(miss(z), [z]), lower, upper)
    return row(
        "betty-ml",
        "`darts` leaves the weights displaced",
        "distance to the weights before",
        found=(z.detach() - before).norm().item(),
        expected=0.0,
    )


if __name__ == "__main__":
    show(measure())
