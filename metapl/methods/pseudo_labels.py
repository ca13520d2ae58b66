"""Pseudo labels of a fixed teacher: a supervised network labels the unlabelled examples, another one learns them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import losses, rng
from metapl.core.types import Key, Model, Params, TargetTransform, Variables
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch
from metapl.methods import supervised
from metapl.methods.base import Method, Networks, Recipe, Trainable
from metapl.methods.single import Evaluated, SingleState, single
from metapl.methods.spec import Given, MethodSpec, NetworkSpec, PhaseSpec


class Fixed(NamedTuple):
    """A teacher that no longer learns, and how its logits become labels."""

    model: Model
    network: Variables
    targets: TargetTransform


def pseudo_labels(trainable: Trainable, teacher: Fixed, augment: Augment, recipe: Recipe) -> Method:
    """Pseudo labels from a fixed teacher: it labels the weak view, the student learns them on the strong one.

    Args:
        trainable: the student and its optimiser.
        teacher: the fixed network.
        augment: the weak and the strong view.
        recipe: the numbers of the loss.

    Returns:
        A method with the networks "model" and "ema".
    """

    def loss(params: Params, state: SingleState, batch: Batch, key: Key) -> tuple[Tensor, Evaluated]:
        weak_key, strong_key, label_key, model_key, shared_key = rng.split(key, 5)
        shared = augment.shared(batch.x_unlabelled, shared_key)
        with torch.no_grad():
            weak = augment.prepare(augment.weak(shared, weak_key))
            targets = teacher.targets.apply(teacher.model.apply(*teacher.network, weak, train=False)[0], label_key)
        x = augment.prepare(augment.strong(shared, strong_key))
        logits, buffers = trainable.model.apply(params, state.train_state.buffers, x, train=True, key=model_key)
        total = losses.cross_entropy(logits, targets, recipe.smoothing).mean()
        return total, Evaluated(buffers, (), {"student": total.detach()})

    return single(trainable, loss, recipe.ema, ("x_unlabelled",))


def build(given: Given, networks: Networks) -> Method:
    """The phase of a run; the teacher is the supervised network."""
    fixed = Fixed(given.models.student, networks["supervised"], given.targets)
    return pseudo_labels(given.trainable(given.models.student, "lr"), fixed, given.augment, given.recipe)


METHOD = MethodSpec(
    title="pseudo labels",
    summary="A network {model} {learnt}, with {labels} labels of a supervised network.",
    source="pseudo labels of a supervised network",
    phases=(
        supervised.PHASE,
        PhaseSpec(
            name="pseudo-labels",
            build=build,
            networks={
                "pseudo-labels": NetworkSpec(
                    title="pseudo labels",
                    role="trained on what a supervised network says of unlabelled examples",
                    row=20,
                    source="ema",
                    preference=30,
                    colour="pink",
                    dash=(4, 2),
                )
            },
        ),
    ),
)
"""The method `pseudo-labels`."""
