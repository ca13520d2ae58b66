"""Implicit differentiation: the parameters count as trained to the end, whatever steps led there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from metapl.core import autodiff, inside, linear, tree
from metapl.core.types import Estimator, Instance, MetaGradient, Params, PyTree
from metapl.estimators import instances, many_steps, one_step, route


def implicit(*, solver: str = "cg", iterations: int = 10, damping: float = 1.0, rate: float = 0.1) -> Estimator:
    """The implicit function theorem at the parameters w′ after the inner steps.

    With L = mean over steps and examples of the inner losses, H = ∂²L/∂w² and v the gradient of the outer loss at w′,

        meta-gradient = −∂/∂θ ⟨q, ∇_w L⟩,    (H + damping) q = v.

    Right where ∇_w L(w′) = 0 and H + damping is positive definite. Elsewhere, such as after one step, it is the
    meta-gradient of parameters that stand where minimising the inner losses to the end would have led.

    Solvers, each with `iterations` products with H:

    - "cg": conjugate gradients from zero (Pedregosa, ICML 2016; iMAML, Rajeswaran et al., NeurIPS 2019). Exact after
      as many iterations as there are parameters.
    - "neumann": q = rate Σ_{i < iterations} (1 − rate (H + damping))ⁱ v (Lorraine et al., AISTATS 2020), which needs
      rate < 2 / largest eigenvalue. At the optimum it is `truncated` through as many steps of gradient descent.
    - "fixed-point": the same with the update of the inner optimiser, its state held still, as the step:
      q ← v + (∂Φ/∂w)ᵀ q for Φ(w) = w + update(∇L(w)), and u = (∂ update / ∂ g)ᵀ q in place of −q (Grazzi et al., ICML
      2020). Adam's preconditioning and clipping come along; no rate and no damping.

    Args:
        solver: "cg", "neumann" or "fixed-point".
        iterations: how many.
        damping: added to H. 1 makes an indefinite Hessian of moderate size harmless; a quadratic needs none.
        rate: the step of "neumann".

    Cost: 1 F + 1 B for the outer loss, 1 F + 1 B and about 2 F + 2 B an iteration for the products, and 2 F for the
    vjp to θ.

    Raises:
        ValueError: an unknown solver, no iterations, a negative damping, or a rate that is not positive.
    """
    if solver not in (*SOLVERS, "fixed-point"):
        raise ValueError(f"implicit(solver={solver!r}) must be 'cg', 'neumann' or 'fixed-point'")
    if iterations < 1:
        raise ValueError(f"implicit(iterations={iterations}) must be at least 1")
    if damping < 0.0 or not rate > 0.0:
        raise ValueError(f"implicit(damping={damping}, rate={rate}): damping must be at least 0, and rate positive")

    cost = "1 F + 1 B (outer), 1 F + 1 B, 2 F + 2 B an iteration, 2 F"
    estimate = partial(_estimate, solver=solver, iterations=iterations, damping=damping, rate=rate)
    return Estimator(lambda: (), estimate, "approximate", ("soft", "sampled", "argmax"), cost)


@autodiff.explained()
def _estimate(
    instance: Instance, memory: PyTree, *, solver: str, iterations: int, damping: float, rate: float
) -> tuple[MetaGradient, PyTree]:
    instances.require_steps(instance)
    found = many_steps.steps_and_outer(instance)
    there = instance._replace(state=found.state)
    _, v = one_step.outer_gradient(there.problem, there.state, there.outer_batch)
    targets = instances.targets(instance)

    def gradient(params: Params) -> tuple[Params, PyTree]:
        return inside.gradient(lambda params: _mean_loss(there, targets, params), params)

    grads, _, hessian = autodiff.vjp(gradient, there.state.params, keep=True)
    if solver == "fixed-point":
        u = _fixed_point(there, grads, hessian, v, iterations)
    else:
        u = tree.scale(-1.0, SOLVERS[solver](linear.damped(hessian, damping), v, iterations, rate))
    to_thetas = [tree.scale(1.0 / len(there.thetas), route.vjp(one, u)) for one in instances.apart(there)]
    scale = tree.norm(u) * tree.norm(grads)
    return found._replace(grads=tuple(to_thetas), scale=scale), memory


def _mean_loss(instance: Instance, targets: Sequence[PyTree], params: Params) -> Tensor:
    """The mean inner loss over all steps and examples, at the same parameters."""
    losses = [
        instance.problem.inner(params, instance.state.buffers, one, batch)[0].mean()
        for one, batch in zip(targets, instance.inner_batches, strict=True)
    ]
    return torch.stack(losses).mean()


SOLVERS: dict[str, Callable[[linear.Linear, Params, int, float], Params]] = {
    "cg": lambda apply, v, iterations, _rate: linear.cg(iterations=iterations)(apply, v),
    "neumann": lambda apply, v, iterations, rate: linear.neumann(iterations=iterations, rate=rate)(apply, v),
}
"""By name, `solve(apply, v, iterations, rate)`: an approximate solution q of apply(q) = v."""


def _fixed_point(instance: Instance, grads: Params, hessian: linear.Linear, v: Params, iterations: int) -> Params:
    """u after `iterations` rounds, the first of which has q = v."""

    def update(at: tuple[Params, Params]) -> tuple[Params, tuple[()]]:
        return instance.problem.optimizer.update(at[0], instance.state.opt_state, at[1])[0], ()

    _, _, vjp = autodiff.vjp(update, (grads, instance.state.params), keep=True)
    u: Params
    q, (u, direct) = v, vjp(v)
    for _ in range(iterations - 1):
        q = tree.add(v, tree.add(q, tree.add(direct, hessian(u))))
        u, direct = vjp(q)
    return u
