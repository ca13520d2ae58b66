"""Each process reads and augments its own rows of a batch alone, where nothing else looks at the others.

A batch keeps its size in every process; the rows of others are zeros as they are read, and NaN as a network sees them.
Process r of N passes the rows r, r + N, … (`metapl.nn.shared_out`), so nothing is made of the others. If anything were,
the loss would be NaN, and the run would stop: it cannot be wrong without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.collectives import Processes
from metapl.core.types import Key
from metapl.data.augment.base import Augment, View, WholeBatchError, identity, part_of_batch
from metapl.data.examples import Examples, take
from metapl.data.loader import Batch, Positions
from metapl.training.experiment import Experiment

PHASES = ("mpl", "uda", "supervised", "finetune", "fixed")
"""Those that look at examples by passes in training alone."""

TRIES = 4
"""Draws by which it is found out whether a view draws for a part of a batch."""


def views(experiment: Experiment, phase: str) -> Augment | None:
    """The views of the own rows, where these are all that a process needs in a phase; None where it needs the batch.

    It does where rows are taken to other places, where a batch cannot be dealt out evenly, and where a view looks at
    other rows or does not draw for a part of a batch.
    """
    config, count = experiment.config, experiment.processes.count
    if count == 1 or phase not in PHASES or "fraction" in config.grad:
        return None
    if config.mixing != "none" or config.exam == "apart" or config.batch_norm_batch or config.batch_norm_groups % count:
        return None
    labelled = {config.labelled_batch, config.finetune_batch or config.labelled_batch}
    sizes = [config.batch, *(min(size, len(experiment.split.labelled)) for size in labelled)]
    if any(size % count for size in sizes) or config.batch > len(experiment.split.unlabelled):
        return None
    x = experiment.data.x
    some = take(x, torch.arange(4 * count) % len(x), experiment.device)
    return augment(experiment.data.augment, some, experiment.processes)


def augment(augment: Augment, some: Tensor, processes: Processes) -> Augment | None:
    """The views of the own rows; None where a view looks at other rows, or does not draw for a part of a batch.

    All processes must call it together, and all get views or none does.

    Args:
        augment: the views.
        some: stored examples `[2 N or more, ...]` on which that is found out.
        processes: who trains together.
    """
    weak, strong, shared = (_view(view, processes) for view in augment[:3])
    own = Augment(weak, strong, shared, _prepare(augment.prepare, processes))
    usable = augment.prepare(some[:1]).is_floating_point() and _same_rows(augment, own, some, processes)
    agreed = processes.reduce(torch.tensor([float(usable)], dtype=torch.float64))
    return own if int(agreed) == processes.count else None


def _same_rows(augment: Augment, own: Augment, some: Tensor, processes: Processes) -> bool:
    rows, keys = _rows(some, processes), rng.split(rng.key(0), TRIES)
    with suppress(WholeBatchError):
        return all(
            torch.equal(whole(some, key)[rows], part(some, key)[rows])
            for whole, part in zip(augment[:3], own[:3], strict=True)
            for key in keys
        )
    return False


def batches(
    x: Examples, y: Tensor, positions: Callable[[int], Positions], processes: Processes
) -> Callable[[int], Batch]:
    """The batches of `metapl.data.loader.batches`, with the own rows read and zeros for the others."""

    def at(step: int) -> Batch:
        labelled, unlabelled = (found.to(y.device) for found in positions(step))
        read = (
            _filled(take(x, part[_rows(part, processes)], y.device), part, processes, 0)
            for part in (labelled, unlabelled)
        )
        return Batch(next(read), y[labelled], next(read), labelled, unlabelled)

    return at


def _rows(x: Tensor, processes: Processes) -> Tensor:
    return torch.arange(len(x), device=x.device)[processes.rank :: processes.count]


def _filled(own: Tensor, like: Tensor, processes: Processes, value: float) -> Tensor:
    """The own rows in their places among as many as `like` has."""
    return own.new_full((len(like), *own.shape[1:]), value).index_copy(0, _rows(like, processes), own)


def _view(view: View, processes: Processes) -> View:
    if view is identity:
        return view

    def own(x: Tensor, key: Key) -> Tensor:
        rows = _rows(x, processes)
        with part_of_batch(rows, len(x)):
            found = view(x[rows], key)
        return _filled(found, x, processes, 0)

    return own


def _prepare(prepare: Callable[[Tensor], Tensor], processes: Processes) -> Callable[[Tensor], Tensor]:
    return lambda x: _filled(prepare(x[_rows(x, processes)]), x, processes, torch.nan)
