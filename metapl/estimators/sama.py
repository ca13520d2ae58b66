"""Scalable meta learning (SAMA): one difference at the trained learner, with the inverse Hessian as the identity."""

from __future__ import annotations

from collections.abc import Sequence

from metapl.core.types import Estimator, Key, MetaGradient, Problem, PyTree, TrainState
from metapl.estimators import student


def sama(*, radius: float = 0.01) -> Estimator:
    """SAMA (Choe et al., NeurIPS 2023): as `difference`, but at the learner *after* its steps.

    The implicit function theorem at the trained parameters θ′, with the identity in place of the inverse Hessian and
    the exam's gradient v carried back through the optimiser, u = (∂ update / ∂ g)ᵀ v (for Adam its diagonal):

        feedback_k = (∇_lesson mean inner_k(θ′ + εu) − ∇_lesson mean inner_k(θ′ − εu)) / 2ε,    ε = radius / |u|,

    for every lesson k, with the u of the last step. An approximation for two reasons: how a step acts through later
    ones is left out, and θ′ is not where the learner was taught; for one step the error is O(lr). The paper leaves
    the length of u open, since Adam forgets it; here it is that of the step, so that it compares with the others.

    Args:
        radius: |εu|, how far the learner is displaced.

    A difference of values goes through what the network detaches or computes under `torch.no_grad`, and past hooks and
    the backward of an `autograd.Function`: for such a network it approximates another gradient than `exact`.

    Cost: 1 F + 1 B for the exam and 2 F a step beyond the learner's own.

    Raises:
        ValueError: a radius that is not positive.
    """
    if not radius > 0.0:
        raise ValueError(f"sama(radius={radius}) must be positive")

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
        *before, last = zip(thetas, inner_batches, student.label_keys(key, len(thetas)), strict=True)
        losses = []
        for theta, batch, label_key in before:
            step = student.step(problem, state, student.targets(problem, [theta], label_key)[0], batch)
            state = step.state
            losses.append(step.loss)
        theta, batch, label_key = last
        _, step, outer, u, scale = student.sit(problem, theta, state, batch, outer_batch, label_key)
        cotangents = [
            student.displaced(problem, step.state, theta, batch, label_key, u, radius)
            for theta, batch, label_key in (*before, last)
        ]
        inner = sum(losses, step.loss) / len(thetas)
        return MetaGradient(tuple(cotangents), step.state, outer, inner, scale * len(thetas), {}), memory

    return Estimator(lambda: (), estimate, "approximate", ("soft", "sampled", "argmax"), "1 F + 1 B (exam), 2 F a step")
