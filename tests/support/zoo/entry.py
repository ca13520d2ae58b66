"""What a row of the zoo is, and what its modules are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

BATCH, CLASSES = 4, 3


NO_FORWARD = ("exact:route=forward", "mixed", "forward")
"""Ways that need forward mode, which an operation may lack; the others must go around it."""

NO_TRANSFORM = (*NO_FORWARD, "implicit")
"""Ways that need `torch.func`, which takes no autograd function of the old form, and no look at the data."""

SECOND = (*NO_TRANSFORM, "exact", "exact:route=reverse", "reverse", "fraction", "unroll", "higher", "score")
"""Ways that need a second derivative, which an operation may lack."""


class Entry(NamedTuple):
    """A module, what goes into it, and what metapl must make of it."""

    build: Callable[[], nn.Module]
    x: Callable[[int], Any]
    """From a seed to one batch; a tuple is so many positional inputs, a dict so many keywords."""
    refused: str | None = None
    """A pattern that the refusal must match, where metapl must refuse the module; None where it must be right."""
    evaluated: bool = False
    """Whether the exam is in evaluation mode."""
    random: bool = False
    """Whether the module draws, and so needs a key."""
    coupled: bool = False
    """Whether the examples of a batch see each other, so that a part of the batch has another feedback."""
    twin: Callable[[], nn.Module] | None = None
    """The same function in plainer torch, for the reference, where differences of the module itself are not the truth:
    straight-through values, and modules that have no plain double."""
    either: tuple[str, ...] = ()
    """The ways that may be right or refuse it in one line, as they like."""
    formula: bool = False
    """Whether it differs from another one in a smooth formula only, so that a few of the ways do."""
    needs: str | None = None
    """A package that not everybody has."""
    one_dict: bool = False
    """Whether a dict is one input."""

    def expected(self, way: str) -> str:
        """ "right", "refused", or "either"."""
        drawn_by_rows = way == "fraction" and self.random
        if way in self.either or drawn_by_rows:
            return "either"
        return "refused" if self.refused else "right"

    def call(self, module: nn.Module, x: Any) -> Tensor:
        """As a user of plain torch would."""
        if isinstance(x, tuple):
            return module(*x)
        return module(**x) if isinstance(x, dict) and not self.one_dict else module(x)


class Fn(nn.Module):
    """A module from a function of itself and its inputs."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module | nn.Parameter | int | float | None) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Tensor:
        return self.function(self, *inputs)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbers(*shape: int) -> Callable[[int], Tensor]:
    return lambda seed: noise(BATCH, *shape, seed=seed)


def words(length: int, count: int) -> Callable[[int], Tensor]:
    return lambda seed: torch.randint(count, (BATCH, length), generator=torch.Generator().manual_seed(seed))


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * 0.7)


def linear(width: int = 4) -> nn.Linear:
    return nn.Linear(width, CLASSES)


def after(function: Callable[..., Tensor], width: int = 4) -> Callable[[], nn.Module]:
    """A function between two linear layers of four inputs."""
    return lambda: Fn(lambda m, x: m.head(function(torch.tanh(m.first(x)))), first=nn.Linear(4, 4), head=linear(width))


def between(layer: Callable[[], nn.Module], width: int = 4) -> Callable[[], nn.Module]:
    """A layer between two linear layers of four inputs, with a smooth bend before it and after."""
    return lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), layer(), nn.Tanh(), linear(width))
