"""Straight-through Gumbel-softmax: sampled labels, differentiated as if they were soft ones with the same noise."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from metapl.core import rng, tree
from metapl.core.types import Estimator, Instance, Key, MetaGradient, PyTree, TargetTransform
from metapl.estimators.exact import exact


def gumbel(*, temperature: float = 1.0, route: str = "auto") -> Estimator:
    """Straight-through Gumbel-softmax (Jang et al., ICLR 2017; Maddison et al., ICLR 2017).

    A label is ŷ = argmax(θ + G) with Gumbel noise G. It is the target of the inner step, and the derivative is that of

        softmax((θ + G) / temperature)

    with the same G, everything after it exact. Biased: the derivative belongs to another function than the value. The
    bias falls with the temperature, and the variance grows.

    Where the inner loss is linear in the targets, as a cross entropy is, `exact` with sampled labels has the
    expectation over all labels at the same price, and no bias; this estimator is for comparisons and for losses that
    are not linear.

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
    estimate = partial(_estimate, through=through, temperature=temperature)
    return Estimator(through.init, estimate, "approximate", ("sampled",), through.cost)


def _estimate(
    instance: Instance, memory: PyTree, *, through: Estimator, temperature: float
) -> tuple[MetaGradient, PyTree]:
    problem = instance.problem
    relaxed = TargetTransform(partial(_relaxed, problem.targets, temperature), problem.targets.log_prob)
    return through.estimate(instance._replace(problem=problem._replace(targets=relaxed)), memory)


def _relaxed(targets: TargetTransform, temperature: float, theta: PyTree, key: Key) -> PyTree:
    """The targets, with the derivative of the relaxed ones."""

    def relax(logits: Tensor, hard: Tensor) -> Tensor:
        noise = rng.gumbel(key, logits.shape, logits.dtype, logits.device)  # the noise that drew the label
        soft = torch.softmax((logits + noise) / temperature, dim=-1)
        return hard.detach() + (soft - soft.detach())

    return tree.map(relax, theta, targets.apply(theta, key))
