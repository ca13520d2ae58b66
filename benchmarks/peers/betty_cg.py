"""`cg` in Betty builds the next direction from the old residual.

Conjugate gradients end at the solution of six equations after six iterations; these do not.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from common import PHI, A, B, hypergradient, load, metapl_hypergradient, miss, quadratic, row, show

cg = load("betty.hypergradient.cg", "betty-ml").cg


def measure() -> dict[str, Any]:
    """The hypergradient of a quadratic problem in six dimensions, at its solution."""
    phi = torch.tensor(PHI, dtype=torch.float64, requires_grad=True)
    z = (PHI * torch.linalg.solve(A, B)).requires_grad_()
    upper = SimpleNamespace(trainable_parameters=lambda: [phi])
    lower = SimpleNamespace(  # of a problem the function asks for these only
        paths=[],
        cur_batch=None,
        config=SimpleNamespace(cg_iterations=6, cg_alpha=1.0),
        parameters=lambda: [z],
        trainable_parameters=lambda: [z],
        training_step_exec=lambda batch: quadratic(z, phi),  # noqa: ARG005 - there is no batch
    )
    found = cg(torch.autograd.grad(miss(z), [z]), lower, upper)[0].item()
    return row(
        "betty-ml",
        "conjugate gradients use the old residual",
        "hypergradient",
        found=found,
        expected=hypergradient(),
        metapl=metapl_hypergradient(solver="cg", iterations=6),
    )


if __name__ == "__main__":
    show(measure())
