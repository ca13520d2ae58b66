"""Adam in `higher` takes `math.sqrt` of a bias correction that may be a tensor, which cuts the graph there.

So a beta2 that is given by `override` in order to be learned gets a part of its derivative only.
"""

from __future__ import annotations

from typing import Any

import torch
from common import PHI, difference, higher_exam, metapl_exam, row, show, slope, torch_exam

from metapl import optim

BETA2 = 0.99


def measure() -> dict[str, Any]:
    """The derivative of the exam with respect to beta2."""

    def adam(params: Any, beta2: float = BETA2) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=0.05, betas=(0.9, beta2))

    return row(
        "higher",
        "Adam cuts the graph from beta2 at `math.sqrt`",
        "d exam / d beta2",
        found=slope(lambda beta2: higher_exam(adam, PHI, override={"betas": [(0.9, beta2)]}), at=BETA2),
        expected=difference(lambda beta2: torch_exam(lambda params: adam(params, beta2), PHI), BETA2),
        metapl=slope(lambda beta2: metapl_exam(optim.adam(0.05, betas=(0.9, beta2)), PHI), at=BETA2),
    )


if __name__ == "__main__":
    show(measure())
