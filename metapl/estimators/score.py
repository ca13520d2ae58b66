"""The score function with per-example credit: the paper's estimator without its cross terms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metapl import gradients
from metapl.estimators import student
from metapl.types import Estimator, Feedback, Key, Learner, Params, Problem, PyTree


def score() -> Estimator:
    """Per-example credit for sampled labels, from one forward-mode pass.

    With ŷ drawn from the lesson, ℓ_i the learner's loss on example i and u = (∂ update / ∂ g)ᵀ v as in `exact`,

        feedback = ∇_lesson Σ_i c_i log p(ŷ_i | lesson_i),    c_i = D_u ℓ_i(ŷ_i) / batch.

    The c_i add up to −h of `first_order`, which credits the sum to every example. Given v, and for an optimiser linear
    in g, both have the exact feedback as their expectation; the terms that this one leaves out have expectation zero
    and most of the variance. With argmax labels it is biased, as `first_order` is.

    Cost: that of `exact`, which for MPL is this estimator's expectation over labels at the same price; it serves
    learners whose loss is not linear in the targets, and comparisons.

    Raises:
        ValueError: labels without a log-probability.
    """

    def estimate(
        problem: Problem,
        lessons: Sequence[PyTree],
        learner: Learner,
        batches: Sequence[PyTree],
        exam: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[Feedback, PyTree]:
        lesson, batch = student.single("score()", lessons, batches)
        log_prob = student.drawn("score()", problem)
        targets, step, outer, u, scale = student.sit(problem, lesson, learner, batch, exam, key)

        def inner(params: Params) -> Tensor:
            return problem.inner(params, learner.buffers, targets, batch)[0]

        with torch.no_grad():
            credit = torch.func.jvp(inner, (learner.params,), (u,))[1]
        credit = credit / len(credit)
        _, _, cotangent = gradients.value_and_grad(
            lambda lesson: ((credit * log_prob(lesson, targets)).sum(), ()), lesson
        )
        return Feedback((cotangent,), step.learner, outer, step.loss, scale, {"slope": credit.sum()}), memory

    return Estimator(lambda: (), estimate, "unbiased", ("sampled", "argmax"), "1 F + 1 B (exam), 1 jvp = 2 F")
