"""What becomes of a step whose numbers are not finite: the run stops, or the step counts for nothing.

Each way is a wrapper of a method, a pure function like the method itself, so that it works for every method and under
`torch.vmap`, where each member of a population has its own fate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import Key, PyTree
from metapl.data.loader import Batch
from metapl.methods.base import Method

SKIPPED = "skipped"
"""The metric that says whether a step counts for nothing: 1 or 0."""


class Guarded(NamedTuple):
    """A state with an older one to go back to."""

    state: PyTree
    good: PyTree
    age: Tensor
    """The steps since then."""


def stopping(method: Method, every: int) -> Method:
    """The method as it is; the training loop ends the run at its next report."""
    del every
    return method


def skipping(method: Method, every: int) -> Method:
    """The state stays what it was, so a skipped step gives no gradient and no feedback. The next has its own batch."""
    del every

    def step(state: PyTree, batch: Batch, key: Key) -> tuple[PyTree, dict[str, Tensor]]:
        new, metrics = method.step(state, batch, key)
        sound = finite((new, metrics))
        return _either(sound, new, state), {**metrics, SKIPPED: (~sound).double()}

    return method._replace(step=step)


def rolling_back(method: Method, every: int) -> Method:
    """The state becomes one of up to `every` steps before, and the batches between are not seen again.

    Cost: a second state in memory.
    """

    def init(key: Key) -> Guarded:
        state = method.init(key)
        return Guarded(state, state, torch.zeros((), dtype=torch.int64, device=key.device))

    def step(at: Guarded, batch: Batch, key: Key) -> tuple[Guarded, dict[str, Tensor]]:
        new, metrics = method.step(at.state, batch, key)
        sound = finite((new, metrics))
        old = sound & (at.age + 1 >= every)
        state = _either(sound, new, at.good)
        age = torch.where(old | ~sound, 0, at.age + 1)
        return Guarded(state, _either(old, new, at.good), age), {**metrics, SKIPPED: (~sound).double()}

    return Method(init, step, lambda at: method.networks(at.state), method.sees)


POLICIES: dict[str, Callable[[Method, int], Method]] = {
    "stop": stopping,
    "skip": skipping,
    "rollback": rolling_back,
}
"""The ways by name, for `--on-nonfinite`."""


def finite(values: PyTree) -> Tensor:
    """Whether all numbers of a tree are finite, a scalar."""
    each = [torch.isfinite(leaf).all() for leaf in tree.leaves(values) if tree.differentiable(leaf)]
    return torch.stack(each).all()


def _either(sound: Tensor, one: PyTree, other: PyTree) -> PyTree:
    return tree.map(lambda a, b: torch.where(sound, a, b), one, other)


def means(gathered: tuple[dict[str, Tensor], ...]) -> dict[str, Tensor]:
    """The mean of each metric over the steps; those that were skipped are in no mean but that of `SKIPPED`."""
    found = {name: torch.stack([one[name] for one in gathered]) for name in gathered[-1]}
    if SKIPPED not in found:
        return {name: values.mean(0) for name, values in found.items()}
    taken = 1 - found[SKIPPED]
    kept = {name: torch.where(taken > 0, values, 0).sum(0) / taken.sum(0) for name, values in found.items()}
    return {**kept, SKIPPED: found[SKIPPED].mean(0)}
