"""Evolution strategies: the gradient of a smoothed function from its values alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metapl.core import rng, tree
from metapl.core.types import Estimator, Key, MetaGradient, Problem, PyTree, TrainState
from metapl.estimators import student


def antithetic(fn: Callable[[PyTree], Tensor], at: PyTree, key: Key, *, sigma: float, pairs: int) -> PyTree:
    """The gradient of E[fn(at + σ ε)], ε standard normal, by antithetic pairs (Salimans et al., 2017).

    mean over ε of (fn(at + σ ε) − fn(at − σ ε)) ε / 2σ. Unbiased for the smoothed function, whose gradient is that of
    `fn` up to O(σ²); for d numbers the variance is about (d + 1) / pairs times the squared length of the gradient.

    `fn` is called and never differentiated: it may go through anything, such as a teacher's parameters, its lesson,
    a hundred steps of a student and an accuracy.

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
    """Antithetic evolution strategies on the lessons: `antithetic` of the exam after all steps.

    Nothing is differentiated, so it does for any learner, optimiser and exam. All draws of one estimate teach with the
    same label key, so with sampled labels it sees how the lesson turns labels over, jumps included. The most probable
    class (argmax) hardly ever turns over, and its true derivative is zero: these labels are not offered.

    Args:
        sigma: the standard deviation of the noise, in units of the lesson.
        pairs: how many; each takes the learner's steps and the exam twice.

    Cost: 2 pairs (K (1 F + 1 B) + 1 F), and 1 B for the scale.

    Raises:
        ValueError: a sigma that is not positive, or less than one pair.
    """
    if not sigma > 0.0:
        raise ValueError(f"evolution(sigma={sigma}) must be positive")
    if pairs < 1:
        raise ValueError(f"evolution(pairs={pairs}) must be at least 1")

    def estimate(
        problem: Problem,
        thetas: Sequence[PyTree],
        state: TrainState,
        inner_batches: Sequence[PyTree],
        outer_batch: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[MetaGradient, PyTree]:
        def examine(thetas: list[PyTree]) -> Tensor:
            after, _ = student.course(problem, thetas, state, inner_batches, key, method="reverse")
            return problem.outer(after.params, after.buffers, outer_batch)

        told = student.taught(problem, thetas, state, inner_batches, outer_batch, key)
        found = antithetic(examine, list(thetas), student.own_key(key), sigma=sigma, pairs=pairs)
        return told._replace(grads=tuple(found)), memory

    cost = "2 pairs (K (1 F + 1 B) + 1 F), 1 F + 1 B (exam)"
    return Estimator(lambda: (), estimate, "approximate", ("soft", "sampled"), cost)
