"""Adam in TorchOpt, as it comes, differentiates √v at v = 0: one zero gradient entry makes the meta-gradient NaN.

An input that is zero in every example is enough. `eps_root=1e-8` avoids it, and changes the steps.
"""

from __future__ import annotations

from typing import Any

import torch
from common import DEAD, PHI, STEPS, difference, inner, load, metapl_exam, outer, row, show, slope, start, torch_exam
from torch import Tensor

from metapl import optim

torchopt = load("torchopt", "torchopt")


def outer_batch(phi: Tensor) -> Tensor:
    """The exam after a few steps by TorchOpt."""
    weights = (start().requires_grad_(),)
    adam = torchopt.adam(0.05)
    state = adam.init(weights)
    for _ in range(STEPS):
        grads = torch.autograd.grad(inner(weights[0], phi, DEAD), weights, create_graph=True)
        updates, state = adam.update(grads, state, params=weights, inplace=False)
        weights = torchopt.apply_updates(weights, updates, inplace=False)
    return outer(weights[0])


def measure() -> dict[str, Any]:
    """The meta-gradient through three steps, with an input that is zero in every example."""
    return row(
        "torchopt",
        "Adam: NaN where a gradient is exactly zero",
        "meta-gradient",
        found=slope(outer_batch),
        expected=difference(lambda phi: torch_exam(lambda w: torch.optim.Adam(w, lr=0.05), phi, DEAD), PHI),
        metapl=slope(lambda phi: metapl_exam(optim.adam(0.05), phi, DEAD)),
    )


if __name__ == "__main__":
    show(measure())
