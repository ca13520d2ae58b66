"""Evolution strategies: the gradient of a smoothed function from its values alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from metapl.core import rng, tree
from metapl.core.types import Estimator, Instance, Key, MetaGradient, PyTree
from metapl.estimators import instances, many_steps


def antithetic(fn: Callable[[PyTree], Tensor], at: PyTree, key: Key, *, sigma: float, pairs: int) -> PyTree:
    """The gradient of E[fn(at + σ ε)], ε standard normal, by antithetic pairs (Salimans et al., 2017).

    mean over ε of (fn(at + σ ε) − fn(at − σ ε)) ε / 2σ. Unbiased for the smoothed function, whose gradient is that of
    `fn` up to O(σ²); for d numbers the variance is about (d + 1) / pairs times the squared length of the gradient.

    `fn` is called and never differentiated: it may go through anything, such as a hundred steps of training and an
    accuracy.

    Args:
        fn: from a tree shaped as `at` to a scalar.
        at: a tree of floating-point tensors.
        key: draws the ε.
        sigma: their standard deviation.
        pairs: how many; two calls each.

    Returns:
        A tree shaped as `at`.
    """
    leaves, structure = tree.flatten(at)
    found = tree.zeros_like(at)
    for one in rng.split(key, pairs):
        keyed = zip(rng.split(one, len(leaves)), leaves, strict=True)
        noise = tree.unflatten([rng.normal(k, leaf.shape, leaf.dtype, leaf.device) for k, leaf in keyed], structure)
        with torch.no_grad():
            above = fn(tree.add(at, tree.scale(sigma, noise)))
            below = fn(tree.sub(at, tree.scale(sigma, noise)))
        found = tree.add(found, tree.scale((above - below) / (2.0 * sigma * pairs), noise))
    return found


def evolution(*, sigma: float = 0.1, pairs: int = 8) -> Estimator:
    """Antithetic evolution strategies on the meta-parameters: `antithetic` of the outer loss after all inner steps.

    Nothing is differentiated, so it does for any network, optimiser and outer loss. All draws of one estimate draw the
    targets with the same key, so with sampled labels it sees how θ turns labels over, jumps included. The most probable
    class (argmax) hardly ever turns over, and its true derivative is zero: these labels are not offered.

    Args:
        sigma: the standard deviation of the noise, in units of θ.
        pairs: how many; each takes the inner steps and the outer loss twice.

    Cost: 2 pairs (K (1 F + 1 B) + 1 F), and 1 B for the scale.

    Raises:
        ValueError: a sigma that is not positive, or less than one pair.
    """
    if not sigma > 0.0:
        raise ValueError(f"evolution(sigma={sigma}) must be positive")
    if pairs < 1:
        raise ValueError(f"evolution(pairs={pairs}) must be at least 1")
    estimate, cost = partial(_estimate, sigma=sigma, pairs=pairs), "2 pairs (K (1 F + 1 B) + 1 F), 1 F + 1 B (outer)"
    return Estimator(lambda: (), estimate, "approximate", ("soft", "sampled"), cost)


def _estimate(instance: Instance, memory: PyTree, *, sigma: float, pairs: int) -> tuple[MetaGradient, PyTree]:
    def outer(thetas: list[PyTree]) -> Tensor:
        after, _ = many_steps.unrolled(instance._replace(thetas=thetas), method="reverse")
        return instance.problem.outer(after.params, after.buffers, instance.outer_batch)

    found = many_steps.steps_and_outer(instance)
    key = instances.own_key(instance.key)
    grads = antithetic(outer, list(instance.thetas), key, sigma=sigma, pairs=pairs)
    return found._replace(grads=tuple(grads)), memory
