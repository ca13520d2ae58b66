"""Scalable meta learning (SAMA): one difference at the trained parameters, with the inverse Hessian as the identity."""

from __future__ import annotations

from functools import partial

from metapl.core.types import Estimator, Instance, MetaGradient, PyTree
from metapl.estimators import instances, one_step


def sama(*, radius: float = 0.01) -> Estimator:
    """SAMA (Choe et al., NeurIPS 2023): as `difference`, but at the parameters *after* the inner steps.

    The implicit function theorem at the trained parameters w′, with the identity in place of the inverse Hessian and
    the gradient v of the outer loss carried back through the optimiser, u = (∂ update / ∂ g)ᵀ v (for Adam its
    diagonal):

        meta-gradient_k = (∇_θ mean inner_k(w′ + εu) − ∇_θ mean inner_k(w′ − εu)) / 2ε,    ε = radius / |u|,

    for the θ of every step k, with the u of the last step. An approximation for two reasons: how a step acts through
    later ones is left out, and w′ is not where the inner gradients were taken; for one step the error is O(lr). The
    paper leaves the length of u open, since Adam forgets it; here it is that of the step, so that it compares with the
    others.

    Args:
        radius: |εu|, how far the parameters are moved.

    A difference of values goes through what the network detaches or computes under `torch.no_grad`, and past hooks and
    the backward of an `autograd.Function`: for such a network it approximates another gradient than `exact`.

    Cost: 1 F + 1 B for the outer loss and 2 F a step beyond the inner steps themselves.

    Raises:
        ValueError: a radius that is not positive.
    """
    if not radius > 0.0:
        raise ValueError(f"sama(radius={radius}) must be positive")
    targets, cost = ("soft", "sampled", "argmax"), "1 F + 1 B (outer), 2 F a step"
    return Estimator(lambda: (), partial(_estimate, radius=radius), "approximate", targets, cost)


def _estimate(instance: Instance, memory: PyTree, *, radius: float) -> tuple[MetaGradient, PyTree]:
    instances.require_steps(instance)
    every = instances.apart(instance)
    *before, last = every
    state, losses = instance.state, []
    for one in before:
        step = one_step.step(one._replace(state=state), *instances.targets(one))
        state = step.state
        losses.append(step.loss)
    _, step, (outer, _, u, scale) = one_step.step_and_outer(last._replace(state=state))
    grads = [one_step.difference_of_gradients(one._replace(state=step.state), u, radius) for one in every]
    inner = sum(losses, step.loss) / len(every)
    return MetaGradient(tuple(grads), step.state, outer, inner, scale * len(every), {}), memory
