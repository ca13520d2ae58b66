"""Where a run stands, in a file: everything that the rest of the run is a function of.

Nothing of such a file is believed. The run that goes on builds what it would build anyway, and takes from the file no
more than the values of tensors whose places, shapes and types are those of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import Variables
from metapl.files import sealed
from metapl.files.schema import among, any_of, by_name, listed, number, table, text, whole
from metapl.methods.base import Networks
from metapl.methods.spec import PhaseSpec
from metapl.registry.errors import InputError
from metapl.training.loop import Stepped

FORMAT = 1
"""The version of what is written; a file of another version is refused."""


class Stored(NamedTuple):
    """Where a run, or a population, stands."""

    phase: str
    step: int
    state: dict[str, Tensor]
    """The leaves of the phase's state by their paths, in their order."""
    metrics: dict[str, Tensor]
    """`[steps, ...]`: those since the last report."""
    seen: int
    """The examples of these steps."""
    reporting: float
    """Seconds since the last report."""
    networks: dict[str, Variables]
    """Of the phases before."""
    seconds: float
    """That the run has taken, all parts of it."""
    seeds: tuple[int, ...]
    """Of the runs that train together; one of a run alone."""
    made_with: dict[str, Any]
    """Versions and machine."""
    keep: int = 0
    """States that stay when the run is over."""


_ABOUT = table(
    {
        "format": whole(FORMAT, FORMAT),
        "phase": text(200),
        "step": whole(1),
        "state": listed(text()),
        "strides": by_name(text(), listed(whole())),
        "metrics": listed(text()),
        "seen": whole(),
        "reporting": number,
        "networks": listed(text(200)),
        "tensors": listed(listed(text(), 3, 3)),
        "seconds": number,
        "seeds": listed(whole(-(2**63), 2**64), 1),
        "keep": whole(),
        "made_with": by_name(text(100), any_of),
    }
)


def of(at: Stepped, networks: Networks, seconds: float, seeds: Sequence[int], made_with: dict[str, Any]) -> Stored:
    """What is to be stored of a run after a step.

    Args:
        at: the step.
        networks: of the phases before.
        seconds: that the run has taken.
        seeds: of the runs that train together.
        made_with: versions and machine.

    Raises:
        ValueError: a state with other leaves than tensors, which no method has.
    """
    leaves = dict(zip(tree.paths(at.state), tree.leaves(at.state), strict=True))
    if other := [path for path, leaf in leaves.items() if not isinstance(leaf, Tensor)]:
        raise ValueError(f"the state of phase {at.phase} has no tensor at {other[0]}: states are trees of tensors")
    metrics = {name: torch.stack([one[name] for one in at.gathered]) for name in at.gathered[-1]}
    reporting = time.perf_counter() - at.since
    return Stored(
        at.phase, at.step, leaves, metrics, at.seen, reporting, dict(networks), seconds, tuple(seeds), made_with
    )


def write(path: Path, stored: Stored) -> None:
    """Write a state whole or not at all; the tensors may be on any device.

    Raises:
        InputError: the place cannot be written.
    """
    parts = [
        (name, kind, key)
        for name, network in stored.networks.items()
        for kind in Variables._fields
        for key in getattr(network, kind)
    ]
    values = [getattr(stored.networks[name], kind)[key] for name, kind, key in parts]
    about = stored._asdict() | {
        "format": FORMAT,
        "state": list(stored.state),
        "strides": {path: list(leaf.stride()) for path, leaf in stored.state.items() if _rearranged(leaf)},
        "metrics": list(stored.metrics),
        "networks": list(stored.networks),
        "tensors": parts,
    }
    groups = {"state": stored.state.values(), "metrics": stored.metrics.values(), "tensors": values}
    named = {_named(group, place): one for group, ones in groups.items() for place, one in enumerate(ones)}
    sealed.write(path, named, about)


def _named(group: str, place: int) -> str:
    return f"{group}/{place:05}"


def _rearranged(leaf: Tensor) -> bool:
    """Whether its memory has the axes in another order than usual, and no gaps."""
    order = sorted(range(leaf.ndim), key=leaf.stride, reverse=True)
    usual = torch.empty(leaf.shape, device="meta").stride()
    return leaf.stride() != usual and leaf.permute(order).is_contiguous()


def parsed(tensors: Mapping[str, Tensor], found: Any, where: str) -> Stored:
    """What `write` wrote, of what `sealed.read` reads.

    Raises:
        InputError: it was written by another version, or by another program.
    """
    if isinstance(found, dict) and found.get("format", FORMAT) != FORMAT:
        raise InputError(
            f"{where} has the format {found['format']} and not {FORMAT}: go on with the metapl that wrote it"
        )
    about = _ABOUT(found, where)

    def group(name: str, count: int) -> list[Tensor]:
        try:
            return [tensors[_named(name, place)] for place in range(count)]
        except KeyError as missing:
            raise InputError(f"{where} has no tensor {missing}: remove it") from None

    state = dict(zip(about["state"], group("state", len(about["state"])), strict=True))
    for leaf, strides in about["strides"].items():
        if leaf in state:
            state[leaf] = _laid_out(state[leaf], strides)
    networks = {name: Variables({}, {}) for name in about["networks"]}
    for (name, kind, key), value in zip(about["tensors"], group("tensors", len(about["tensors"])), strict=True):
        among(about["networks"])(name, f"{where}: a network")
        among(Variables._fields)(kind, f"{where}: a part of {name}")
        getattr(networks[name], kind)[key] = value
    metrics = dict(zip(about["metrics"], group("metrics", len(about["metrics"])), strict=True))
    known = {name: about[name] for name in ("phase", "step", "seen", "reporting", "seconds", "made_with", "keep")}
    return Stored(**known, state=state, metrics=metrics, networks=networks, seeds=tuple(about["seeds"]))


def _laid_out(leaf: Tensor, strides: list[int]) -> Tensor:
    """The same values with the memory laid out as it was: some kernels round by it."""
    if len(strides) != leaf.ndim:
        return leaf
    order = sorted(range(leaf.ndim), key=strides.__getitem__, reverse=True)
    found = torch.empty([leaf.shape[axis] for axis in order], dtype=leaf.dtype)
    back = sorted(range(leaf.ndim), key=order.__getitem__)
    return found.permute(back).copy_(leaf)


def enter(at: Stepped, stored: Stored | None) -> Stepped:
    """Where a phase stands: at its start `at`, or where it was when its state was stored.

    Raises:
        InputError: the stored state is of something else.
    """
    if stored is None or stored.phase != at.phase:
        return at
    leaves, structure = tree.flatten(at.state)
    own = dict(zip(tree.paths(at.state), leaves, strict=True))
    wrong = [path for path in {**own, **stored.state} if not _alike(own.get(path), stored.state.get(path))]
    if wrong or list(own) != list(stored.state):
        raise InputError(
            f"the stored state of {stored.phase} has other tensors than this run, such as {(wrong or list(own))[0]}: "
            "go on with the configuration and the version that it was stored with"
        )
    if stored.step > at.steps:
        raise InputError(
            f"the stored state is of step {stored.step} of {at.phase}, and it has {at.steps}: give it more"
        )
    state = [value.to(own[path].device) for path, value in stored.state.items()]
    rows = zip(*(values.unbind() for values in stored.metrics.values()), strict=True)
    gathered = tuple(dict(zip(stored.metrics, row, strict=True)) for row in rows)
    return at._replace(
        step=stored.step,
        state=tree.unflatten(state, structure),
        gathered=gathered,
        seen=stored.seen,
        since=time.perf_counter() - stored.reporting,
    )


def remaining(plan: Sequence[PhaseSpec], stored: Stored | None) -> Sequence[PhaseSpec]:
    """The phases of a plan that are not over, and those that are fitted at once: they are fitted again.

    Raises:
        InputError: the stored state is of a phase that is not in the plan.
    """
    if stored is None:
        return plan
    names = [spec.name for spec in plan]
    if stored.phase not in names:
        raise InputError(f"the stored state is of the phase {stored.phase}, and this run has only {', '.join(names)}")
    first = names.index(stored.phase)
    return [spec for place, spec in enumerate(plan) if place >= first or spec.fit]


def _alike(one: Any, other: Tensor | None) -> bool:
    return one is not None and other is not None and (one.shape, one.dtype) == (other.shape, other.dtype)
