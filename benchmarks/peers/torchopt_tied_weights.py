"""`MetaSGD` in TorchOpt unties tied weights: after its first step they are two tensors that each learn alone."""

from __future__ import annotations

from typing import Any

import torch
from common import load, row, show
from torch import Tensor, nn

from metapl import optim
from metapl.core import rng, tree
from metapl.nn import functional

torchopt = load("torchopt", "torchopt")


class Tied(nn.Module):
    """One weight w with two names: the output is w + 2 w."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.b = self.a

    def forward(self, x: Tensor) -> Tensor:
        """3 w x."""
        return (self.a + 2 * self.b) * x


def measure() -> dict[str, Any]:
    """The output after two steps on its half square. Every step takes w to w − lr · 3 · 3 w."""
    lr, one = 0.1, torch.ones((), dtype=torch.float64)
    module = Tied()
    steps = torchopt.MetaSGD(module, lr=lr)
    model, optimizer = functional.from_module(Tied), optim.sgd(lr)
    params, _ = model.init(rng.key(0))
    state = optimizer.init(params)
    for _ in range(2):
        steps.step(0.5 * module(one).square())
        grads = torch.func.grad(lambda p: 0.5 * model.apply(p, {}, one, train=True)[0].square())(params)
        updates, state = optimizer.update(grads, state, params)
        params = tree.add(params, updates)
    return row(
        "torchopt",
        "`MetaSGD` unties tied weights",
        "output after two steps",
        found=module(one).item(),
        expected=3 * (1 - 9 * lr) ** 2,
        metapl=model.apply(params, {}, one, train=True)[0].item(),
    )


if __name__ == "__main__":
    show(measure())
