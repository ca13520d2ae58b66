"""Implicit differentiation: the learner counts as trained to the end, whatever steps led there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metapl.core import autodiff, inside, tree
from metapl.core.types import Estimator, Key, MetaGradient, Params, Problem, PyTree, TrainState
from metapl.estimators import student
from metapl.estimators.route import Lesson, credit

Linear = Callable[[Params], Params]
"""A linear map of the parameters."""


def implicit(*, solver: str = "cg", iterations: int = 10, damping: float = 1.0, rate: float = 0.1) -> Estimator:
    """The implicit function theorem at the learner's parameters θ′ after its steps.

    With L = mean over lessons and examples of the inner losses, H = ∂²L/∂θ² and v the exam's gradient at θ′,

        feedback = −∂/∂lesson ⟨q, ∇_θ L⟩,    (H + damping) q = v.

    Right where ∇_θ L(θ′) = 0 and H + damping is positive definite; elsewhere, such as after one step of a student, it
    is the feedback of a learner that stands where following the lessons to the end would have led.

    Solvers, each with `iterations` products with H:

    - "cg": conjugate gradients from zero (Pedregosa, ICML 2016; iMAML, Rajeswaran et al., NeurIPS 2019). Exact after
      as many iterations as there are parameters.
    - "neumann": q = rate Σ_{i < iterations} (1 − rate (H + damping))ⁱ v (Lorraine et al., AISTATS 2020), which needs
      rate < 2 / largest eigenvalue. At the optimum it is `truncated` through as many steps of gradient descent.
    - "fixed-point": the same with the learner's own update, its state held still, as the step: q ← v + (∂Φ/∂θ)ᵀ q for
      Φ(θ) = θ + update(∇L(θ)), and u = (∂ update / ∂ g)ᵀ q in place of −q (Grazzi et al., ICML 2020). Adam's
      preconditioning and clipping come along; no rate and no damping.

    Args:
        solver: "cg", "neumann" or "fixed-point".
        iterations: how many.
        damping: added to H. 1 makes an indefinite Hessian of moderate size harmless; a quadratic needs none.
        rate: the step of "neumann".

    Cost: 1 F + 1 B for the exam, 1 F + 1 B and about 2 F + 2 B an iteration for the products, 2 F for the lessons.

    Raises:
        ValueError: an unknown solver, no iterations, a negative damping, or a rate that is not positive.
    """
    if solver not in (*SOLVERS, "fixed-point"):
        raise ValueError(f"implicit(solver={solver!r}) must be 'cg', 'neumann' or 'fixed-point'")
    if iterations < 1:
        raise ValueError(f"implicit(iterations={iterations}) must be at least 1")
    if damping < 0.0 or not rate > 0.0:
        raise ValueError(f"implicit(damping={damping}, rate={rate}): damping must be at least 0, and rate positive")

    @autodiff.explained()
    def estimate(
        problem: Problem,
        thetas: Sequence[PyTree],
        state: TrainState,
        inner_batches: Sequence[PyTree],
        outer_batch: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[MetaGradient, PyTree]:
        student.require_steps(thetas, inner_batches)
        told = student.taught(problem, thetas, state, inner_batches, outer_batch, key)
        state = told.state
        _, v = student.exam_gradient(problem, state, outer_batch)
        taught = student.targets(problem, thetas, key)

        def gradient(params: Params) -> tuple[Params, PyTree]:
            return inside.gradient(lambda params: _mean_loss(problem, params, state, taught, inner_batches), params)

        grads, _, hessian = autodiff.pullback(gradient, state.params, keep=True)
        if solver == "fixed-point":
            u = _fixed_point(problem, state, grads, hessian, v, iterations)
        else:
            damped: Linear = lambda one: tree.add(hessian(one), tree.scale(damping, one))  # noqa: E731
            u = tree.scale(-1.0, SOLVERS[solver](damped, v, iterations, rate))

        keys = student.label_keys(key, len(thetas))
        cotangents = [
            tree.scale(1.0 / len(thetas), credit(Lesson(problem, state, *one), u))
            for one in zip(thetas, inner_batches, keys, strict=True)
        ]
        scale = tree.norm(u) * tree.norm(grads)
        return told._replace(grads=tuple(cotangents), scale=scale), memory

    cost = "1 F + 1 B (exam), 1 F + 1 B, 2 F + 2 B an iteration, 2 F"
    return Estimator(lambda: (), estimate, "approximate", ("soft", "sampled", "argmax"), cost)


def _mean_loss(
    problem: Problem, params: Params, state: TrainState, taught: Sequence[PyTree], inner_batches: Sequence[PyTree]
) -> Tensor:
    losses = [
        problem.inner(params, state.buffers, targets, batch)[0].mean()
        for targets, batch in zip(taught, inner_batches, strict=True)
    ]
    return torch.stack(losses).mean()


def _conjugate_gradients(apply: Linear, v: Params, iterations: int, _rate: float) -> Params:
    """(Hestenes and Stiefel, 1952.) Once the residual is zero the iterate stays as it is."""
    q, residual, direction = tree.zeros_like(v), v, v
    square = tree.dot(residual, residual)
    for _ in range(iterations):
        applied = apply(direction)
        step = _ratio(square, tree.dot(direction, applied))
        q = tree.add(q, tree.scale(step, direction))
        residual = tree.sub(residual, tree.scale(step, applied))
        before, square = square, tree.dot(residual, residual)
        direction = tree.add(residual, tree.scale(_ratio(square, before), direction))
    return q


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, 0.0, a / b)


def _neumann(apply: Linear, v: Params, iterations: int, rate: float) -> Params:
    q = term = tree.scale(rate, v)
    for _ in range(iterations - 1):
        term = tree.sub(term, tree.scale(rate, apply(term)))
        q = tree.add(q, term)
    return q


SOLVERS: dict[str, Callable[[Linear, Params, int, float], Params]] = {"cg": _conjugate_gradients, "neumann": _neumann}
"""By name, `solve(apply, v, iterations, rate)`: an approximate solution q of apply(q) = v."""


def _fixed_point(
    problem: Problem, state: TrainState, grads: Params, hessian: Linear, v: Params, iterations: int
) -> Params:
    """u after `iterations` rounds, the first of which has q = v."""

    def move(at: tuple[Params, Params]) -> tuple[Params, tuple[()]]:
        return problem.optimizer.update(at[0], state.opt_state, at[1])[0], ()

    _, _, pull = autodiff.pullback(move, (grads, state.params), keep=True)
    q = v
    u, direct = pull(q)
    for _ in range(iterations - 1):
        q = tree.add(v, tree.add(q, tree.add(direct, hessian(u))))
        u, direct = pull(q)
    return u
