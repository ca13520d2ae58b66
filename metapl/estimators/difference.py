"""The exact meta-gradient with its second derivatives by central differences, as in DARTS."""

from __future__ import annotations

from functools import partial

from metapl.core import hvp
from metapl.core.types import Estimator, Instance, MetaGradient, PyTree
from metapl.estimators import instances, many_steps, one_step


def difference(*, radius: float = 0.01) -> Estimator:
    """The mixed derivative of `exact` as a difference of two gradients (DARTS, Liu et al., ICLR 2019, equation 7).

    With u and the old parameters w as in `exact`, and ε = radius / |u|,

        meta-gradient = (∇_θ mean inner(w + εu) − ∇_θ mean inner(w − εu)) / 2ε.

    For smooth inner losses the error is O(radius²). Nothing is differentiated twice, which serves networks with layers
    whose double backward is missing or wrong. Several steps are replayed, each with its Hessian-vector product by a
    difference too.

    DARTS takes u = −lr v of plain SGD; here u takes momentum, clipping and Adam along.

    Args:
        radius: |εu|, how far the parameters are moved. In single precision rounding asks for no less than about
            0.01, and for 0.1 with several steps, each of which magnifies the rounding of the one after it by
            1 / radius (docs/results/unroll.md).

    A difference of values goes through what the network detaches or computes under `torch.no_grad`, and past hooks and
    the backward of an `autograd.Function`: for such a network it approximates another gradient than `exact`.

    Cost: 1 F + 1 B for the outer loss and 2 F beyond the inner step itself; for K > 1, 3 F + 3 B a step.

    Raises:
        ValueError: a radius that is not positive.
    """
    if not radius > 0.0:
        raise ValueError(f"difference(radius={radius}) must be positive")
    targets, cost = ("soft", "sampled", "argmax"), "1 F + 1 B (outer), 2 F"
    return Estimator(lambda: (), partial(_estimate, radius=radius), "approximate", targets, cost)


def _estimate(instance: Instance, memory: PyTree, *, radius: float) -> tuple[MetaGradient, PyTree]:
    instances.require_steps(instance)
    if len(instance.thetas) > 1:
        return many_steps.unrolled_gradient(instance, method=hvp.difference(radius)), memory
    _, step, outer = one_step.step_and_outer(instance)
    grad = one_step.difference_of_gradients(instance, outer.u, radius)
    return MetaGradient((grad,), step.state, outer.loss, step.loss, outer.scale, {}), memory
