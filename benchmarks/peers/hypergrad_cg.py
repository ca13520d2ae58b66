"""`conjugate_gradient` in hypergrad builds the next direction from the old residual.

Conjugate gradients end at the solution of six equations after six iterations; these do not.
"""

from __future__ import annotations

from typing import Any

import torch
from common import PHI, A, B, hypergradient, load, metapl_hypergradient, miss, quadratic, row, show

solvers = load("hypergrad.approx_hypergrad", "hypergrad")


def measure() -> dict[str, Any]:
    """The hypergradient of a quadratic problem in six dimensions, at its solution."""
    phi = torch.tensor(PHI, dtype=torch.float64)
    solution = phi * torch.linalg.solve(A, B)
    found = solvers.conjugate_gradient(
        lambda z, phi: quadratic(z[0], phi[0]),
        lambda z, phi: miss(z[0]) + 0 * phi[0],
        (solution,),
        (phi,),
        num_iters=6,
        lr=1.0,
    )
    return row(
        "hypergrad",
        "conjugate gradients use the old residual",
        "hypergradient",
        found=found[0].item(),
        expected=hypergradient(),
        metapl=metapl_hypergradient(solver="cg", iterations=6),
    )


if __name__ == "__main__":
    show(measure())
