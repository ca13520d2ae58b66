"""The score function with per-example credit: the paper's estimator without its cross terms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import (
    Buffers,
    Estimator,
    Instance,
    Key,
    MetaGradient,
    Params,
    Problem,
    PyTree,
    TargetTransform,
)
from metapl.estimators import instances
from metapl.estimators.exact import exact


def score(*, route: str = "auto") -> Estimator:
    """Per-example credit for sampled labels, from one forward-mode pass.

    With ŷ drawn from θ, ℓ_i the inner loss of example i and u = (∂ update / ∂ g)ᵀ v as in `exact`,

        meta-gradient = ∇_θ Σ_i c_i log p(ŷ_i | θ_i),    c_i = D_u ℓ_i(ŷ_i) / batch.

    The c_i add up to −h of `first_order`, which credits the sum to every example. Given v, and for an optimiser linear
    in g, both have the exact meta-gradient as their expectation; the terms that this one leaves out have expectation
    zero and most of the variance. With argmax labels it is biased, as `first_order` is.

    It is `exact` for the loss m_i ℓ_i(ŷ_i) with m_i = exp(log p(ŷ_i) − sg[log p(ŷ_i)]), which is 1 and has the score as
    its derivative (the magic box of DiCE, Foerster et al., ICML 2018); so it takes any number of steps.

    Args:
        route: as `exact` has it.

    Cost: that of `exact`, which for a cross entropy is this estimator's expectation over labels at the same price; it
    serves inner losses that are not linear in the targets, and comparisons.

    Raises:
        ValueError: an unknown route, labels without a log-probability.
    """
    through = exact(route=route)
    estimate = partial(_estimate, through=through)
    return Estimator(through.init, estimate, "unbiased", ("sampled", "argmax"), through.cost)


def _estimate(instance: Instance, memory: PyTree, *, through: Estimator) -> tuple[MetaGradient, PyTree]:
    problem = instance.problem
    log_prob = instances.drawn("score()", problem)
    targets = TargetTransform(partial(_weighted, problem.targets, log_prob), log_prob)
    credited = problem._replace(inner=partial(_inner, problem), targets=targets)
    return through.estimate(instance._replace(problem=credited), memory)


def _weighted(
    targets: TargetTransform, log_prob: Callable[[PyTree, PyTree], Tensor], theta: PyTree, key: Key
) -> tuple[PyTree, Tensor]:
    """Drawn targets, and the weight m `[batch]` of each loss."""
    drawn = tree.detach(targets.apply(theta, key))
    chance = log_prob(theta, drawn)
    return drawn, torch.exp(chance - chance.detach())


def _inner(
    problem: Problem, params: Params, buffers: Buffers, weighted: tuple[PyTree, Tensor], batch: PyTree
) -> tuple[Tensor, Buffers]:
    targets, weights = weighted
    losses, buffers = problem.inner(params, buffers, targets, batch)
    return weights * losses, buffers
