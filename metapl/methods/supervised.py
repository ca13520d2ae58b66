"""Supervised learning on the labelled examples."""

from __future__ import annotations

from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key, Params, Variables
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch
from metapl.methods.base import Method, Networks, Recipe, Trainable, forward, mix, self_loss, views
from metapl.methods.single import Evaluated, SingleState, single
from metapl.methods.spec import Given, MethodSpec, NetworkSpec, PhaseSpec


def supervised(trainable: Trainable, augment: Augment, recipe: Recipe, start: Variables | None = None) -> Method:
    """Supervised learning on the labelled batch; with `recipe.uda_weight` > 0 it is UDA (Xie et al., NeurIPS 2020).

    It is the loss of a Meta Pseudo Labels teacher without the feedback.

    Args:
        trainable: the network and its optimiser.
        augment: the weak and the strong view.
        recipe: the numbers of the loss.
        start: weights to start from, in place of fresh ones.

    Returns:
        A method with the networks "model" and "ema".
    """
    seen = ("labelled", "weak", "strong") if recipe.consistent else ("labelled",)

    def loss(params: Params, state: SingleState, batch: Batch, key: Key) -> tuple[Tensor, Evaluated]:
        view_key, model_key = rng.split(key, 2)
        x, mixed = mix(recipe, views(seen, augment, batch, view_key), view_key)
        logits, buffers = forward(trainable.model, params, state.train_state.buffers, x, model_key)
        total, (memory, parts) = self_loss(recipe, logits, batch, state.step, state.memory, mixed)
        return total, Evaluated(buffers, memory, parts)

    sees = ("x_labelled", "x_unlabelled") if recipe.consistent else ("x_labelled",)
    return single(trainable, loss, recipe.ema, sees, start, recipe.consistency.init)


def build(given: Given, networks: Networks) -> Method:
    """The phase of a run."""
    del networks  # it needs none
    recipe = given.recipe._replace(uda_weight=0.0)
    return supervised(given.trainable(given.models.student, "lr"), given.augment, recipe)


PHASE = PhaseSpec(
    name="supervised",
    build=build,
    networks={
        "supervised": NetworkSpec(
            title="supervised only",
            role="trained on the labelled examples alone",
            row=10,
            source="ema",
            preference=10,
            reference=True,
            colour="grey",
            dash=(4, 2),
        )
    },
)
"""The phase that trains one network on the labelled examples."""

METHOD = MethodSpec(
    title="supervised learning",
    summary="A network {model} {learnt}.",
    phases=(PHASE,),
    unlabelled=False,
)
"""The method `supervised`."""
