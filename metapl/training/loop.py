"""The training loop, the same for every method."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch

from metapl.core import rng
from metapl.core.types import Key, PyTree, Variables
from metapl.data.loader import Batch
from metapl.methods.mpl import Method
from metapl.registry.errors import InputError


class Progress(NamedTuple):
    """Where a phase stands; `metrics` are the means since the last report."""

    phase: str
    step: int
    steps: int
    images_per_second: float
    """Examples that the method sees, labelled or not, over the time since the last report."""
    metrics: dict[str, Any]
    """A number each; of a population a list, one a member."""
    networks: dict[str, Variables]


class Phase(NamedTuple):
    """One method's run."""

    name: str
    method: Method
    batches: Callable[[int], Batch]
    steps: int
    key: Key


Tick: TypeAlias = Callable[[str, int, int], None]
"""`tick(phase, step, steps)`, called after every step."""


def no_tick(phase: str, step: int, steps: int) -> None:
    """For who does not want to know."""


def fit(
    phase: Phase,
    report: Callable[[Progress], None],
    every: int = 50,
    tick: Tick = no_tick,
    strict: bool = True,
) -> PyTree:
    """Run a method for its steps and return its last state.

    Step t is `method.step(state, batches(t), fold_in(key, t))`, so a run is determined by its key alone.

    Args:
        phase: what to run.
        report: called every `every` steps and after the last one.
        every: steps between reports.
        tick: called after every step.
        strict: whether a loss that is no longer finite is an error, rather than a bad result.

    Raises:
        InputError: a loss that is no longer finite; checked at every report.
    """
    init_key, step_key = rng.split(phase.key, 2)
    state = phase.method.init(init_key)
    gathered: list[dict[str, torch.Tensor]] = []
    seen, since = 0, time.perf_counter()
    for step in range(phase.steps):
        batch = phase.batches(step)
        state, metrics = phase.method.step(state, batch, rng.fold_in(step_key, step))
        gathered.append(metrics)
        tick(phase.name, step + 1, phase.steps)
        seen += sum(getattr(batch, field).shape[: phase.key.ndim + 1].numel() for field in phase.method.sees)
        if (step + 1) % every and step + 1 != phase.steps:
            continue
        means = {name: torch.stack([m[name] for m in gathered]).mean(0).tolist() for name in metrics}
        if strict:
            _require_finite(phase.name, step + 1, means)
        rate = seen / max(time.perf_counter() - since, 1e-9)
        report(Progress(phase.name, step + 1, phase.steps, rate, means, phase.method.networks(state)))
        gathered, seen, since = [], 0, time.perf_counter()
    return state


def _require_finite(phase: str, step: int, means: dict[str, Any]) -> None:
    wrong = [name for name, value in means.items() if not math.isfinite(value)]
    if wrong:
        raise InputError(
            f"{phase}: {wrong[0]!r} is no longer finite by step {step}: lower --lr or --feedback-weight, or set --clip"
        )
