"""The training loop, the same for every method: an iterator of events.

for event in loop.steps(phase, loop.start(phase)):
match event:
case Stepped(): ...   # after every step
case Reported(): ...  # every so many steps, and after the last one
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key, PyTree
from metapl.data.loader import Batch
from metapl.methods.base import Method, Networks
from metapl.registry.errors import InputError


class Stepped(NamedTuple):
    """A step was taken."""

    phase: str
    step: int
    """The steps taken so far."""
    steps: int
    """Of the whole phase."""
    state: PyTree
    """After the step."""


class Reported(NamedTuple):
    """Where a phase stands; `metrics` are the means since the last report."""

    phase: str
    step: int
    steps: int
    images_per_second: float
    """Examples that the method sees, labelled or not, over the time since the last report."""
    metrics: dict[str, Any]
    """A number each; a list of numbers where the method computes several at once."""
    networks: Networks


Event: TypeAlias = Stepped | Reported
"""What the loop yields."""


class Phase(NamedTuple):
    """A method and everything that its training is a function of."""

    name: str
    method: Method
    batches: Callable[[int], Batch]
    """`batches(step)`: what each step sees."""
    steps: int
    key: Key
    count: Callable[[Tensor], int] = len
    """How many examples a tensor of a batch holds."""


def start(phase: Phase) -> PyTree:
    """The state before the first step."""
    init_key, _ = rng.split(phase.key, 2)
    return phase.method.init(init_key)


def steps(phase: Phase, state: PyTree, every: int = 50, strict: bool = True) -> Iterator[Event]:
    """Train for the steps of a phase.

    Step t is `method.step(state, batches(t), fold_in(key, t))`, so a run is determined by its key alone.

    Args:
        phase: what to train.
        state: before the first step.
        every: steps between reports.
        strict: whether a loss that is no longer finite is an error, rather than a bad result.

    Yields:
        `Stepped` after every step; `Reported` after every `every` steps, and as the last event of all.

    Raises:
        InputError: a loss that is no longer finite; checked at every report.
    """
    _, step_key = rng.split(phase.key, 2)
    gathered: list[dict[str, Tensor]] = []
    seen, since = 0, time.perf_counter()
    for step in range(phase.steps):
        batch = phase.batches(step)
        state, metrics = phase.method.step(state, batch, rng.fold_in(step_key, step))
        gathered.append(metrics)
        yield Stepped(phase.name, step + 1, phase.steps, state)
        seen += sum(phase.count(getattr(batch, field)) for field in phase.method.sees)
        if (step + 1) % every and step + 1 != phase.steps:
            continue
        means = {name: torch.stack([m[name] for m in gathered]).mean(0).tolist() for name in metrics}
        if strict:
            _require_finite(phase.name, step + 1, means)
        rate = seen / max(time.perf_counter() - since, 1e-9)
        yield Reported(phase.name, step + 1, phase.steps, rate, means, phase.method.networks(state))
        gathered, seen, since = [], 0, time.perf_counter()


def _require_finite(phase: str, step: int, means: dict[str, Any]) -> None:
    wrong = [name for name, value in means.items() if not math.isfinite(value)]
    if wrong:
        raise InputError(
            f"{phase}: {wrong[0]!r} is no longer finite by step {step}: lower lr or feedback_weight, or set clip",
            *("lr", "feedback_weight", "clip"),
        )
