"""Straight-through Gumbel-softmax: sampled labels, differentiated as if they were soft ones with the same noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metapl.core import rng, tree
from metapl.core.types import Estimator, Key, MetaGradient, Problem, PyTree, TargetTransform, TrainState
from metapl.estimators.exact import exact


def gumbel(*, temperature: float = 1.0, route: str = "auto") -> Estimator:
    """Straight-through Gumbel-softmax (Jang et al., ICLR 2017; Maddison et al., ICLR 2017).

    A label is ŷ = argmax(lesson + G) with Gumbel noise G. The learner is taught ŷ, and the derivative is that of

        softmax((lesson + G) / temperature)

    with the same G, everything after it exact. Biased: the derivative belongs to another function than the value. The
    bias falls with the temperature, and the variance grows.

    Where the inner loss is linear in the targets, as in MPL, `exact` with sampled labels has the expectation over all
    labels at the same price, and no bias; this estimator is for comparisons and for losses that are not linear.

    Args:
        temperature: of the softmax on the way back.
        route: as `exact` has it.

    Cost: that of `exact`.

    Raises:
        ValueError: a temperature that is not positive.
    """
    if not temperature > 0.0:
        raise ValueError(f"gumbel(temperature={temperature}) must be positive")
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
        def transform(theta: PyTree, key: Key) -> PyTree:
            return tree.map(
                lambda logits, hard: _relaxed(logits, hard, key, temperature), theta, problem.targets.apply(theta, key)
            )

        relaxed = problem._replace(targets=TargetTransform(transform, problem.targets.log_prob))
        return through.estimate(relaxed, thetas, state, inner_batches, outer_batch, memory, key)

    return Estimator(through.init, estimate, "approximate", ("sampled",), through.cost)


def _relaxed(logits: Tensor, hard: Tensor, key: Key, temperature: float) -> Tensor:
    noise = rng.gumbel(key, logits.shape, logits.dtype, logits.device)  # the noise that drew the label
    soft = torch.softmax((logits + noise) / temperature, dim=-1)
    return hard.detach() + (soft - soft.detach())
