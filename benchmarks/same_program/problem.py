"""What every program of this folder is given: a small network, its loss, and two batches."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Params: TypeAlias = dict[str, Tensor]
Batch: TypeAlias = tuple[Tensor, Tensor]


def loss(params: Params, batch: Batch) -> Tensor:
    """The mean loss of a network with a hidden layer."""
    x, y = batch
    return cross_entropy(torch.tanh(x @ params["in"]) @ params["out"], y)


class Network(nn.Module):
    """The parameters, for a library that wants a module."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        for name, leaf in params.items():
            self.register_parameter(name, nn.Parameter(leaf.clone()))


def problem(examples: int = 128, inputs: int = 64, hidden: int = 256) -> tuple[Params, Batch, Batch]:
    """The parameters before the first step, a batch to train on and one that is held out; float64."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    params = {"in": normal(inputs, hidden) / inputs**0.5, "out": normal(hidden, 10) / hidden**0.5}
    target = normal(inputs, 10)
    train, held = (normal(examples, inputs) for _ in range(2))
    return params, (train, (train @ target).argmax(1)), (held, (held @ target).argmax(1))
