"""What the methods of a run that are fitted at once may look at."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key
from metapl.data.examples import subset
from metapl.data.loader import in_order
from metapl.methods.seen import Prior, Seen
from metapl.models.fitted import MOST
from metapl.training.experiment import Experiment

NUMBERS = 2**24
"""The most numbers in the examples of all parts together, 64 MiB."""


def room(shape: tuple[int, ...], classes: int) -> int:
    """How many examples of a shape are looked at: as many as `NUMBERS` holds, but two a class at least."""
    return min(max(NUMBERS // math.prod(shape), 2 * classes), MOST)


def gather(experiment: Experiment) -> Seen:
    """The labelled examples, the validation part, and as many of the unlabelled ones as there is room for.

    Where there is not room for all, a part is drawn by a key of the run.
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
    x = subset(data.x, torch.cat([known, unlabelled]))
    ready = torch.cat([part.flatten(1) for part in in_order(x, torch.device("cpu"), data.augment.prepare)])
    y = data.y[known.to(data.y.device)].cpu()
    left_out = len(others) - len(unlabelled) + len(split.labelled) - len(labelled)
    return Seen(ready.float(), y, len(labelled), left_out, data.form, key, _prior(experiment))


def _prior(experiment: Experiment) -> Prior | None:
    if experiment.config.alignment == "none":
        return None
    rules = experiment.rules
    return Prior(rules.prior(experiment.counts).cpu().double(), rules.guess)


def _some(index: Tensor, count: int, key: Key) -> Tensor:
    """At most so many of some indices, in an order drawn by the key."""
    return index[rng.permutation(key, len(index))[:count]]
