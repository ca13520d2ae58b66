"""The exact meta-gradient of parameters that are taken to descend by plain SGD, whatever their optimiser is."""

from __future__ import annotations

from functools import partial

import torch

from metapl.core import tree
from metapl.core.types import Estimator, Instance, MetaGradient, PyTree
from metapl.estimators import instances, one_step
from metapl.estimators.route import require
from metapl.estimators.route import step as routed_step


def unadapted(*, route: str = "auto") -> Estimator:
    """`exact` without the way through the inner optimiser.

    The parameters take their true step. With v the gradient of the outer loss after it, u what `exact` pulls back
    through the optimiser, and g the gradient of the mean inner loss,

        meta-gradient = d⟨ũ, g(θ)⟩ / dθ,    ũ = −(|u| / |v|) v,

    so it says what plain SGD would make of θ, with a step as long. The paper's estimator leaves the optimiser out as
    well; SAMA (Choe et al., NeurIPS 2023) shows for Adam what that costs. Equal to `exact` for SGD, with momentum and
    Nesterov's too, unless it is clipped; not for rules that scale each parameter by itself, such as Adam's.

    Args:
        route: as `exact` has it.

    Cost: 1 F + 1 B for the outer loss and 2 F to 3 F beyond the inner step itself, as `exact`.

    Raises:
        ValueError: an unknown route; from the estimate, more than one step.
    """
    require(route)
    targets, cost = ("soft", "sampled", "argmax"), "1 F + 1 B (outer), 2 F to 3 F"
    return Estimator(lambda: (), partial(_estimate, route=route), "approximate", targets, cost, several=False)


def _estimate(instance: Instance, memory: PyTree, *, route: str) -> tuple[MetaGradient, PyTree]:
    instances.single("unadapted()", instance)
    step, vjp = routed_step(instance, route)
    outer, v, u, scale = one_step.outer_after(instance, step)
    length, whole = tree.norm(u), tree.norm(v)
    descent = tree.scale(-length / whole.clamp_min(torch.finfo(whole.dtype).tiny), v)
    info = {"slope": tree.dot(descent, step.grads)}
    return MetaGradient((vjp(descent),), step.state, outer, step.loss, scale, info), memory
