"""Whether processes that train together train the network that one process would."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from metapl import methods
from metapl.core import rng, tree
from metapl.core.collectives import ALONE
from metapl.core.types import Model, Variables
from metapl.data.examples import take
from metapl.nn.precision import PRECISIONS
from metapl.registry.errors import InputError
from metapl.training.architectures import architectures, text
from metapl.training.experiment import Experiment


def require_shareable(experiment: Experiment) -> None:
    """Compare the first pass of each network by all processes with that of this one, over a few examples.

    What couples the examples of a batch, other than BatchNorm, or draws noise that metapl does not see, comes out
    different. All processes must call it together. Cost: two passes over three examples a process.

    Raises:
        InputError: they differ.
    """
    count = experiment.processes.count
    if count == 1:
        return
    data = experiment.data
    config = replace(experiment.config, precision=PRECISIONS[0])  # others round by how large a part of the batch is
    together, alone = (architectures(config, data.form, those) for those in (experiment.processes, ALONE))
    some = torch.arange(3 * count + 1) % len(data.x)
    x = data.augment.prepare(take(data.x, some, experiment.device))
    x = x.float() if x.is_floating_point() else x
    for field in {*methods.find(config.method).models.values()} & {"student", "teacher"}:
        models = [getattr(those, field) for those in (together, alone)]
        network = tree.to(Variables(*models[1].init(experiment.keys.root)), experiment.device)
        if not all(map(_near, *(_pass(model, network, x) for model in models))):
            raise InputError(
                f"model = {text(config, field)}: what it says of an example depends on the rest of the batch by "
                "something else than BatchNorm, or on noise of its own: train it in one process",
                "model",
            )


def _pass(model: Model, network: Variables, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        logits, after = model.apply(*network, x, train=True, key=rng.key(0))
    return [logits, *(value for value in after.values() if tree.differentiable(value))]


def _near(one: Tensor, other: Tensor) -> bool:
    allowed = torch.finfo(one.dtype).eps ** 0.5 * (1.0 + other.abs().amax()) if one.numel() else 0.0
    return bool(((one - other).abs() <= allowed).all())
