"""Adam in TorchOpt computes the bias correction in float32, for float64 parameters too."""

from __future__ import annotations

from typing import Any

import torch
from common import load, row, show

from metapl import optim

torchopt = load("torchopt", "torchopt")


def measure() -> dict[str, Any]:
    """The first update for a gradient of 1: there m / (1 − β₁) = g and √(v / (1 − β₂)) = |g| exactly."""
    lr, eps = 0.05, 1e-8
    weight, grad = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    adam = torchopt.adam(lr, eps=eps)
    updates, _ = adam.update((grad,), adam.init((weight,)), params=(weight,), inplace=False)
    ours, params = optim.adam(lr, eps=eps), {"w": weight}
    return row(
        "torchopt",
        "Adam corrects its bias in float32",
        "first step",
        found=updates[0].item(),
        expected=-lr * 1.0 / (1.0 + eps),
        metapl=ours.update({"w": grad}, ours.init(params), params)[0]["w"].item(),
    )


if __name__ == "__main__":
    show(measure())
