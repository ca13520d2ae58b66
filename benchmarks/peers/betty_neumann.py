"""The Neumann series by Betty is right, given a step below 2 / λ_max and enough terms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from common import PHI, A, B, hypergradient, load, metapl_hypergradient, miss, quadratic, row, show

neumann = load("betty.hypergradient.neumann", "betty-ml").neumann


def measure() -> dict[str, Any]:
    """The hypergradient of a quadratic problem in six dimensions, at its solution."""
    phi = torch.tensor(PHI, dtype=torch.float64, requires_grad=True)
    z = (PHI * torch.linalg.solve(A, B)).requires_grad_()
    upper = SimpleNamespace(trainable_parameters=lambda: [phi])
    lower = SimpleNamespace(  # of a problem the function asks for these only
        paths=[],
        cur_batch=None,
        config=SimpleNamespace(neumann_iterations=400, neumann_alpha=0.1),
        parameters=lambda: [z],
        trainable_parameters=lambda: [z],
        training_step_exec=lambda batch: quadratic(z, phi),  # noqa: ARG005 - there is no batch
    )
    found = neumann(torch.autograd.grad(miss(z), [z]), lower, upper)[0].item()
    return row(
        "betty-ml",
        "Neumann series, 400 terms added",
        "hypergradient",
        found=found,
        expected=hypergradient(),
        metapl=metapl_hypergradient(solver="neumann", iterations=401, rate=0.1),
    )


if __name__ == "__main__":
    show(measure())
