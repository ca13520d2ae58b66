"""The training loop, the same for every method: an iterator of events.

    for event in loop.steps(phase, loop.start(phase)):
        match event:
            case Stepped(): ...   # after every step
            case Reported(): ...  # every so many steps, and after the last one

`Stepped` holds everything that the steps to come are a function of, so that a loop can go on from any of them.
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
from metapl.training import nonfinite
from metapl.training.compiling import Compiled


class Stepped(NamedTuple):
    """A step was taken, and this is where the phase stands: `steps` goes on from here."""

    phase: str
    step: int
    """The steps taken so far."""
    steps: int
    """Of the whole phase."""
    state: PyTree
    """After the step."""
    gathered: tuple[dict[str, Tensor], ...] = ()
    """The metrics of the steps since the last report."""
    seen: int = 0
    """The examples of these steps."""
    since: float = 0.0
    """`time.perf_counter()` before the first of them."""


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


Event: TypeAlias = Stepped | Reported | Compiled
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
    news: Callable[[], Compiled | None] = lambda: None
    """What there is to say of how the step is computed, asked for after every one."""


def start(phase: Phase) -> Stepped:
    """Where a phase stands before its first step."""
    init_key, _ = rng.split(phase.key, 2)
    return Stepped(phase.name, 0, phase.steps, phase.method.init(init_key), since=time.perf_counter())


def steps(phase: Phase, at: Stepped, every: int = 50, strict: bool = True) -> Iterator[Event]:
    """Train for the steps of a phase that are left.

    Step t is `method.step(state, batches(t), fold_in(key, t))`, so a run is determined by its key alone, however often
    it was stopped and went on.

    Args:
        phase: what to train.
        at: where it stands: `start(phase)`, or an event of the same phase.
        every: steps between reports.
        strict: whether a loss that is no longer finite is an error, rather than a bad result.

    Yields:
        `Stepped` after every step; `Compiled` after the one in which it was compiled; `Reported` after every `every`
        steps, and as the last event of all. A report that is due where the phase stands comes first.

    Raises:
        InputError: a loss that is no longer finite; checked at every report.
    """
    _, step_key = rng.split(phase.key, 2)
    if at.gathered and _due(at, every):
        yield _report(phase, at, strict)
        at = at._replace(gathered=(), seen=0, since=time.perf_counter())
    for step in range(at.step, phase.steps):
        batch = phase.batches(step)
        state, metrics = phase.method.step(at.state, batch, rng.fold_in(step_key, step))
        seen = at.seen + sum(phase.count(getattr(batch, field)) for field in phase.method.sees)
        at = at._replace(step=step + 1, state=state, gathered=(*at.gathered, metrics), seen=seen)
        yield at
        if found := phase.news():
            yield found
            at = at._replace(seen=0, since=time.perf_counter())  # the rate is that of the steps to come
        if _due(at, every):
            yield _report(phase, at, strict)
            at = at._replace(gathered=(), seen=0, since=time.perf_counter())


def _due(at: Stepped, every: int) -> bool:
    """Whether a report follows this step."""
    return at.step % every == 0 or at.step == at.steps


def _report(phase: Phase, at: Stepped, strict: bool) -> Reported:
    means = {name: mean.tolist() for name, mean in nonfinite.means(at.gathered).items()}
    if strict:
        _require_finite(phase, at, means)
    rate = at.seen / max(time.perf_counter() - at.since, 1e-9)
    return Reported(phase.name, at.step, phase.steps, rate, means, phase.method.networks(at.state))


def _require_finite(phase: Phase, at: Stepped, means: dict[str, Any]) -> None:
    """Refuse means that are not finite: say since which step, and whether the data is to blame."""
    wrong = [name for name, value in means.items() if not math.isfinite(value)]
    if not wrong:
        return
    finite = [bool(nonfinite.finite(metrics)) for metrics in at.gathered]
    first = at.step - len(finite) + finite.index(False) + 1
    where = f"{phase.name}: {wrong[0]!r} is no longer finite, from step {first} on, as is known by step {at.step}"
    if suspects := _suspects(phase.batches(first - 1)):
        raise InputError(f"{where}: example {suspects[0]} of the training pool has no finite values: mend or remove it")
    raise InputError(
        f"{where}: lower lr or feedback_weight, set clip, or on_nonfinite = skip",
        *("lr", "feedback_weight", "clip", "on_nonfinite"),
    )


def _suspects(batch: Batch) -> list[int]:
    """The positions of the examples of a batch that hold something else than finite numbers."""
    parts = ((batch.x_labelled, batch.labelled), (batch.x_unlabelled, batch.unlabelled))
    return [
        int(place)
        for x, places in parts
        if places is not None and places.ndim == 1
        for row, place in zip(x, places, strict=True)
        if not bool(torch.isfinite(row).all())
    ]
