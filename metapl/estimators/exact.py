"""The exact meta-gradient: of one step without a Hessian, of several by replaying them."""

from __future__ import annotations

from functools import partial

from metapl.core import autodiff, tree
from metapl.core.types import Claim, Estimator, Instance, MetaGradient, PyTree
from metapl.estimators import instances, many_steps, one_step
from metapl.estimators.route import part_vjp, require, watched_step
from metapl.estimators.route import step as routed_step


def exact(*, fraction: float = 1.0, method: str = "replay", route: str = "auto") -> Estimator:
    """The exact meta-gradient through the inner steps; through a single one without a double backward.

    The parameters w move by update(g) with g = ∇_w mean inner(w, targets(θ)). With v the gradient of the outer loss
    after the step and u = (∂ update / ∂ g)ᵀ v, the chain rule gives

        d outer / dθ = d⟨u, g(θ)⟩ / dθ
                     = d(D_u mean inner(w, targets(θ))) / dθ,

    and D_u is the directional derivative along u. θ enters only at the loss, so there are two routes that pass
    no Hessian (`metapl.estimators.route`): forward, by tangents at the *old* parameters, for which the step's own pass
    is used again, and reverse, back through the recorded gradient. Left open, networks that train convolutions go
    forward, where that is cheaper, and all others, and those with an operation that has no forward mode, in reverse.
    For the cross entropy of soft labels p(θ) and plain SGD it is −(lr / batch) Σ_i ∇ p_i · D_v(−log q(x_i)), with q the
    network's probabilities and D_v now along v.
    Several steps are replayed one by one on the way back, by `metapl.core.unrolling.unroll`.

    Exact for every differentiable optimiser, its warm state included, and for BatchNorm in training mode. For sampled
    labels the step is taken on the sample, and the meta-gradient is the expectation over labels of the score-function
    gradient, given that v. What the network computes under `torch.no_grad` or detaches is a constant.

    Args:
        fraction: of the inner batch, drawn at random, that gets a meta-gradient; the rest gets zeros. For one step
            only, and by the forward route. Below 1 it is unbiased where an example's loss does not depend on the
            others: with BatchNorm in training mode, or noise that is not metapl's dropout, it is refused. θ, targets
            and batch must have the examples along their first axis.
        method: of `metapl.core.unrolling.unroll` for several steps, "replay", "mixed" or "reverse": the same numbers.
        route: "auto", "forward" or "reverse", for one step: the same numbers up to rounding. "difference" takes D_u by
            a one-sided difference instead, half as much work and an approximation (docs/results/cost.md).

    Cost: 1 F + 1 B for the outer loss and, beyond the inner step itself, 2 F forward (a jvp of 3 F times the fraction
    below 1, and where the step's own pass cannot be used again), 2 F and the memory of a recorded gradient in reverse,
    1 F by a difference. For K > 1 steps, one step more and a
    double backward a step (about 2 F + 2 B), and the memory of K train states and one step.

    Raises:
        ValueError: a fraction outside (0, 1], an approximate method, an unknown route, a fraction below 1 of several
            steps or in reverse.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"exact(fraction={fraction}) must lie in (0, 1]")
    if method not in ("replay", "mixed", "reverse"):
        raise ValueError(f"exact(method={method!r}) must be 'replay', 'mixed' or 'reverse', the exact ones")
    require(route)
    if fraction < 1.0 and route in ("reverse", "difference"):
        raise ValueError(f"exact(fraction={fraction}) goes by the forward route: leave route={route} out")
    estimate = partial(_estimate, fraction=fraction, method=method, route=route)
    claim: Claim = "approximate" if route == "difference" else "exact" if fraction == 1.0 else "unbiased"
    cost = "1 F + 1 B (outer), 2 F to 3 F; K > 1: 3 F + 3 B a step"
    return Estimator(lambda: (), estimate, claim, ("soft", "sampled", "argmax"), cost, several=fraction == 1.0)


@autodiff.explained()
def _estimate(
    instance: Instance, memory: PyTree, *, fraction: float, method: str, route: str
) -> tuple[MetaGradient, PyTree]:
    instances.require_steps(instance)
    if fraction < 1.0:
        return _part(instance, fraction), memory
    if len(instance.thetas) > 1:
        return many_steps.unrolled_gradient(instance, method=method), memory
    return _one(instance, route), memory


def _one(instance: Instance, route: str) -> MetaGradient:
    step, vjp = routed_step(instance, route)
    loss, _, u, scale = one_step.outer_after(instance, step)
    return MetaGradient((vjp(u),), step.state, loss, step.loss, scale, {"slope": tree.dot(u, step.grads)})


def _part(instance: Instance, fraction: float) -> MetaGradient:
    instances.single(f"exact(fraction={fraction})", instance)
    step, watch = watched_step(instance)
    watch.require_forward(f"exact(fraction={fraction})")
    loss, _, u, scale = one_step.outer_after(instance, step)
    grad = part_vjp(instance, u, step.losses, fraction, instances.own_key(instance.key))
    return MetaGradient((grad,), step.state, loss, step.loss, scale, {"slope": tree.dot(u, step.grads)})
