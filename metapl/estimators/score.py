"""The score function with per-example credit: the paper's estimator without its cross terms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import (
    Buffers,
    Estimator,
    Key,
    MetaGradient,
    Params,
    Problem,
    PyTree,
    TargetTransform,
    TrainState,
)
from metapl.estimators import student
from metapl.estimators.exact import exact


def score(*, route: str = "auto") -> Estimator:
    """Per-example credit for sampled labels, from one forward-mode pass.

    With ŷ drawn from the lesson, ℓ_i the learner's loss on example i and u = (∂ update / ∂ g)ᵀ v as in `exact`,

        feedback = ∇_lesson Σ_i c_i log p(ŷ_i | lesson_i),    c_i = D_u ℓ_i(ŷ_i) / batch.

    The c_i add up to −h of `first_order`, which credits the sum to every example. Given v, and for an optimiser linear
    in g, both have the exact feedback as their expectation; the terms that this one leaves out have expectation zero
    and most of the variance. With argmax labels it is biased, as `first_order` is.

    It is `exact` for the loss m_i ℓ_i(ŷ_i) with m_i = exp(log p(ŷ_i) − sg[log p(ŷ_i)]), which is 1 and has the score as
    its derivative (the magic box of DiCE, Foerster et al., ICML 2018); so it takes any number of steps.

    Args:
        route: as `exact` has it.

    Cost: that of `exact`, which for MPL is this estimator's expectation over labels at the same price; it serves
    learners whose loss is not linear in the targets, and comparisons.

    Raises:
        ValueError: an unknown route, labels without a log-probability.
    """
    through = exact(route=route)

    def estimate(
        problem: Problem,
        thetas: Sequence[PyTree],
        state: TrainState,
        inner_batches: Sequence[PyTree],
        outer_batch: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[MetaGradient, PyTree]:
        log_prob = student.drawn("score()", problem)

        def transform(theta: PyTree, key: Key) -> tuple[PyTree, Tensor]:
            drawn = tree.detach(problem.targets.apply(theta, key))
            chance = log_prob(theta, drawn)
            return drawn, torch.exp(chance - chance.detach())

        def inner(
            params: Params, buffers: Buffers, taught: tuple[PyTree, Tensor], batch: PyTree
        ) -> tuple[Tensor, Buffers]:
            losses, buffers = problem.inner(params, buffers, taught[0], batch)
            return taught[1] * losses, buffers

        credited = problem._replace(inner=inner, targets=TargetTransform(transform, log_prob))
        return through.estimate(credited, thetas, state, inner_batches, outer_batch, memory, key)

    return Estimator(through.init, estimate, "unbiased", ("sampled", "argmax"), through.cost)
