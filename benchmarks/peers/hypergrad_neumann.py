"""The Neumann series by hypergrad is right, given a step below 2 / λ_max and enough terms."""

from __future__ import annotations

from typing import Any

import torch
from common import PHI, A, B, hypergradient, load, metapl_hypergradient, miss, quadratic, row, show

solvers = load("hypergrad.approx_hypergrad", "hypergrad")


def measure() -> dict[str, Any]:
    """The hypergradient of a quadratic problem in six dimensions, at its solution."""
    phi = torch.tensor(PHI, dtype=torch.float64)
    solution = phi * torch.linalg.solve(A, B)
    found = solvers.neumann(
        lambda z, phi: quadratic(z[0], phi[0]),
        lambda z, phi: miss(z[0]) + 0 * phi[0],
        (solution,),
        (phi,),
        num_iters=400,
        lr=0.1,
    )
    return row(
        "hypergrad",
        "Neumann series, 400 terms added",
        "hypergradient",
        found=found[0].item(),
        expected=hypergradient(),
        metapl=metapl_hypergradient(solver="neumann", iterations=401, rate=0.1),
    )


if __name__ == "__main__":
    show(measure())
