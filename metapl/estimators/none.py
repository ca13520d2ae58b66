"""No meta-gradient: the ablation that every other estimator is compared with."""

from __future__ import annotations

import torch

from metapl.core import tree
from metapl.core.types import Estimator, Instance, MetaGradient, PyTree
from metapl.estimators import many_steps


def none() -> Estimator:
    """A meta-gradient of zero: the inner steps are taken and the outer loss is found, and that is all.

    Its scale is 1, not |u||g|: that would cost a backward pass, and scales nothing.

    Cost: 1 F for the outer loss, which is only logged.
    """
    return Estimator(lambda: (), _estimate, "zero", ("soft", "sampled", "argmax"), "1 F (outer)")


def _estimate(instance: Instance, memory: PyTree) -> tuple[MetaGradient, PyTree]:
    with torch.no_grad():
        after, loss = many_steps.unrolled(instance, method="reverse")
        outer = instance.problem.outer(after.params, after.buffers, instance.outer_batch)
    nothing = tuple(tree.zeros_like(theta) for theta in instance.thetas)
    return MetaGradient(nothing, after, outer, loss, torch.ones_like(outer), {}), memory
