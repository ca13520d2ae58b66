"""Learning rates as functions of the step count."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from metapl.registry.errors import InputError

Schedule: TypeAlias = Callable[[Tensor], Tensor]
"""`schedule(step)`: the value at a step count (int64 scalar, 0 at the first step), a float32 or float64 scalar."""

Rate: TypeAlias = float | Tensor | Schedule | Mapping[str, Any]
"""What an optimiser takes as its learning rate; a dict, shaped as the parameters, has one for each."""


def at(rate: Rate, step: Tensor) -> float | Tensor:
    """The value of a learning rate at a step count."""
    if isinstance(rate, Mapping):
        raise InputError("a learning rate for each parameter: let optim.by_leaf make the constructor of this rule")
    return rate(step) if callable(rate) else rate


def constant(value: float | Tensor) -> Schedule:
    """The same value at every step."""
    return lambda step: torch.as_tensor(value, dtype=torch.float64, device=step.device)


def cosine(base: float | Tensor, total: int, warmup: int = 0, wait: int = 0) -> Schedule:
    """Zero for `wait` steps, linear warm-up over `warmup` steps, then half a cosine down to zero at `total`.

    With s = step − wait:  0 for s < 0;  base (s + 1) / warmup for s < warmup;
    base (1 + cos(π (s − warmup) / (total − warmup − wait))) / 2 after that, and 0 from `total` on.
    It is the schedule of the Meta Pseudo Labels release, whose student waits at first.
    """
    if total <= warmup + wait:
        raise ValueError(f"cosine(total={total}) must be more than warmup + wait = {warmup + wait} steps")
    falls = total - warmup - wait
    return _after_warmup(base, warmup, wait, lambda s: 0.5 * (1.0 + torch.cos(math.pi * (s / falls).clamp(0.0, 1.0))))


def plateau(base: float | Tensor, total: int, warmup: int = 0, wait: int = 0) -> Schedule:  # noqa: ARG001 - as `cosine`
    """Zero for `wait` steps, linear warm-up over `warmup` steps, then `base`, whatever the `total`."""
    return _after_warmup(base, warmup, wait, torch.ones_like)


def _after_warmup(base: float | Tensor, warmup: int, wait: int, shape: Callable[[Tensor], Tensor]) -> Schedule:
    def schedule(step: Tensor) -> Tensor:
        s = (step - wait).to(torch.float64)
        rising = (s + 1.0) / max(warmup, 1)
        factor = torch.where(s < 0, torch.zeros_like(s), torch.where(s < warmup, rising, shape(s - warmup)))
        return base * factor

    return schedule


SCHEDULES: dict[str, Callable[[float | Tensor, int, int, int], Schedule]] = {"cosine": cosine, "constant": plateau}
"""By name, for `--schedule`: each of (base, total, warmup, wait)."""
