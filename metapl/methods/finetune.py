"""Finetuning on the labelled examples: a phase that a method may end with."""

from __future__ import annotations

from metapl.methods.base import Method, Networks
from metapl.methods.spec import Given, NetworkSpec, PhaseSpec
from metapl.methods.supervised import supervised


def finetuning(start: str) -> PhaseSpec:
    """The phase that goes on from the network `start`, with an optimiser and a constant learning rate of its own."""

    def build(given: Given, networks: Networks) -> Method:
        recipe = given.recipe._replace(uda_weight=0.0)
        return supervised(given.finetuning(given.models.student), given.augment, recipe, networks[start])

    return PhaseSpec(
        name="finetune",
        build=build,
        networks={
            "finetuned": NetworkSpec(
                title="finetuned",
                role="the student's averaged weights, finetuned on the labelled examples",
                row=80,
                source="model",
                preference=50,
                colour="green",
                width=2.6,
            )
        },
        steps="finetune_steps",
        labelled_batch="finetune_batch",
        continues=start,
    )
