"""Training on losses that are weighed, on digits some of whose labels are wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import mean
from typing import Any

import flipped
import torch
from torch import Tensor, nn

import metapl as mp

RATE = 0.1
Weigh = Callable[[Any, Any, Tensor, Tensor], tuple[Tensor, Any]]
"""`weigh(memory, params, x, y)`: a weight for each example, and the next memory."""


def network() -> nn.Module:
    """Two layers."""
    return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))


def losses(model: mp.Model, params: Any, x: Tensor, y: Tensor) -> Tensor:
    """The loss of every example, `[batch]`."""
    return mp.cross_entropy(model.apply(params, {}, x, train=True)[0], y)


def train(weigh: Weigh, memory: Any, data: flipped.Digits, seed: int, steps: int) -> float:
    """The test accuracy after descent on weights · losses, by SGD with momentum on 100 examples a step."""
    model, optimizer = mp.from_module(network), mp.sgd(RATE, momentum=0.9)
    params, _ = model.init(mp.key(seed))
    state, generator = optimizer.init(params), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(data.x), (100,), generator=generator)
        x, y = data.x[rows], data.y[rows]
        weights, memory = weigh(memory, params, x, y)
        _, _, grads = mp.value_and_grad(lambda p, w=weights, x=x, y=y: (w @ losses(model, p, x, y), ()), params)
        updates, state = optimizer.update(grads, state, params)
        params = mp.tree.add(params, updates)
    return float((model.apply(params, {}, data.test_x, train=False)[0].argmax(1) == data.test_y).float().mean())


def compare(name: str, method: Callable[[mp.Model, flipped.Digits], tuple[Weigh, Any]]) -> None:
    """Print the accuracy with and without a method, and what the clean or the right labels alone come to."""
    seeds, steps = (int(word) for word in sys.argv[1:] or ("5", "1500"))
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        data = flipped.digits(seed)
        parts = {
            "all labels alike": data,
            "the clean ones alone": data._replace(x=data.clean_x, y=data.clean_y),
            "the right ones alone": data._replace(x=data.x[~data.wrong], y=data.y[~data.wrong]),
        }
        for way, part in parts.items():
            found.setdefault(way, []).append(train(alike, (), part, seed, steps))
        found.setdefault(name, []).append(train(*method(mp.from_module(network), data), data, seed, steps))
    for way, values in found.items():
        print(f"{way:22} {mean(values):.1%}, from {min(values):.1%} to {max(values):.1%}")


def alike(memory: Any, params: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Any]:
    """The same weight for every example."""
    return torch.full((len(x),), 1 / len(x)), memory
