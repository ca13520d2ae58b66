"""Unsupervised data augmentation (Xie et al., NeurIPS 2020): supervised learning, and consistency between views."""

from __future__ import annotations

from metapl.methods.base import Method, Networks
from metapl.methods.spec import Given, MethodSpec, NetworkSpec, PhaseSpec
from metapl.methods.supervised import supervised


def build(given: Given, networks: Networks) -> Method:
    """The phase of a run."""
    del networks  # it needs none
    return supervised(given.trainable(given.models.student, "lr"), given.augment, given.recipe)


METHOD = MethodSpec(
    title="UDA",
    summary="A network {model} {learnt}.",
    guided=True,
    source="UDA ([Xie et al., NeurIPS 2020](https://arxiv.org/abs/1904.12848))",
    phases=(
        PhaseSpec(
            name="uda",
            build=build,
            networks={
                "uda": NetworkSpec(
                    title="UDA",
                    role="trained on labels and on consistency between views (UDA)",
                    row=30,
                    source="ema",
                    preference=20,
                    colour="orange",
                    dash=(4, 2),
                )
            },
        ),
    ),
    baselines=("supervised",),
    needs=("uda_weight",),
    otherwise="supervised",
)
"""The method `uda`."""
