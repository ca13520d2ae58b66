"""The methods of a run that are fitted at once: what they may look at, and their fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from metapl.core import rng, tree
from metapl.core.collectives import require_same
from metapl.core.types import Key
from metapl.data.examples import subset
from metapl.data.loader import in_order
from metapl.data.notes import some
from metapl.methods.seen import Fitted, Prior, Seen
from metapl.models.fitted import MOST
from metapl.registry.errors import InputError
from metapl.training.experiment import Experiment

NUMBERS = 2**24
"""The most numbers in the examples of all parts together, 64 MiB."""


def fitting(experiment: Experiment) -> Callable[[str, Callable[[Seen], Fitted]], Fitted]:
    """`fit(phase, method)` for the phases of a run that are fitted at once; one that is `fitted` is not fitted again.

    The examples are read when the first one asks.
    """
    looked = cache(lambda: gather(experiment))

    def fit(phase: str, method: Callable[[Seen], Fitted]) -> Fitted:
        if phase in experiment.fitted:
            return experiment.fitted[phase]
        found, left_out = method(looked()), looked().left_out
        require_same(experiment.processes, "classical network", [*found.networks.values()])
        less = f"; {left_out:,} examples are left out" if left_out else ""
        return Fitted(tree.to(dict(found.networks), experiment.device), found.chosen + less)

    return fit


def room(shape: tuple[int, ...], classes: int) -> int:
    """How many examples of a shape are looked at: as many as `NUMBERS` holds, but two a class at least."""
    return min(max(NUMBERS // math.prod(shape), 2 * classes), MOST)


def gather(experiment: Experiment) -> Seen:
    """The labelled examples, the validation part, and as many of the unlabelled ones as there is room for.

    Where there is not room for all, a part is drawn by a key of the run.

    Raises:
        InputError: examples that hold something else than finite numbers.
    """
    data, split = experiment.data, experiment.split
    key = experiment.keys.of("panel")
    most = room(data.form.shape, data.classes)
    labelled_key, validation_key, unlabelled_key = rng.split(key, 3)
    labelled = _some(split.labelled, most, labelled_key)
    validation = _some(split.validation, most, validation_key)
    others = split.unlabelled[~torch.isin(split.unlabelled, split.labelled)]
    unlabelled = _some(others, most - len(labelled), unlabelled_key)
    known = torch.cat([labelled, validation])
    places = torch.cat([known, unlabelled])
    parts = in_order(subset(data.x, places), torch.device("cpu"), data.augment.prepare)
    ready = torch.cat([part.flatten(1) for part in parts])
    _require_finite(ready, places)
    y = data.y[known.to(data.y.device)].cpu()
    left_out = len(others) - len(unlabelled) + len(split.labelled) - len(labelled)
    return Seen(ready.float(), y, len(labelled), left_out, data.form, key, _prior(experiment))


def _prior(experiment: Experiment) -> Prior | None:
    if experiment.config.alignment == "none":
        return None
    rules = experiment.rules
    return Prior(rules.prior(experiment.counts).cpu().double(), rules.guess)


def _require_finite(x: Tensor, places: Tensor) -> None:
    bad = places[~torch.isfinite(x).all(1)].sort().values.tolist()
    if bad:
        raise InputError(
            f"{len(bad):,} examples of the training pool have no finite values ({some(bad)}, from 0 on): "
            "mend or remove them"
        )


def _some(index: Tensor, count: int, key: Key) -> Tensor:
    """At most so many of some indices, in an order drawn by the key."""
    return index[rng.permutation(key, len(index))[:count]]
