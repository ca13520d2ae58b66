"""The optimisers that a configuration names: their options are read once, their learning rates come later."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from metapl import optim
from metapl.core.types import Model, Optimizer
from metapl.optim.schedule import Rate
from metapl.registry import notation

Rule: TypeAlias = Callable[[Rate, Model], Optimizer]
"""`rule(rate, model)`: the optimiser for a model, at a learning rate or with a schedule of them."""


def rule(text: str, clip: float = 0.0) -> Rule:
    """The update rule that a text names.

    Weight decay leaves out the scales and shifts of normalisation layers.

    Args:
        text: NAME:key=value,…
        clip: the largest norm of a gradient; 0 for no clipping.

    Raises:
        InputError: an unknown rule or option. The returned rule raises one for a value that the optimiser refuses.
    """
    create = notation.bind(text, optim.OPTIMIZERS, "optimizer")

    def build(rate: Rate, model: Model) -> Optimizer:
        found = create(rate)
        if model.scales and found.rule.options.get("weight_decay"):
            bare = create(rate, weight_decay=0.0)
            owners = {"rest": found, "scales": bare}
            found = optim.groups(lambda param: "scales" if param in model.scales else "rest", owners)
        return optim.chain(optim.clip_by_global_norm(clip), found) if clip else found

    return build
