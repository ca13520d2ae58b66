"""Forward gradients: directional derivatives of the exam along random directions of the lessons."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from metapl.core import autodiff, rng, tree
from metapl.core.types import Estimator, Key, MetaGradient, Problem, PyTree, TrainState
from metapl.estimators import student


def forward(*, directions: int = 8) -> Estimator:
    """Forward gradient (Baydin et al., 2022; for bilevel problems (FG)²U, Shen et al., ICML 2024).

    feedback = mean over directions r of (D_r exam) r, with every entry of r ±1 at random. Unbiased, since E[r rᵀ] is
    the identity; for d numbers in the lessons and n directions the variance is (d − 1) / n times the squared length of
    the gradient. Nothing is kept but the learner and its tangent, however many steps there are.

    Args:
        directions: n, how many.

    Cost: n times K (2 F + 2 B) + 2 F by forward mode over reverse mode, and 1 B for the scale.

    Raises:
        ValueError: less than one direction.
    """
    if directions < 1:
        raise ValueError(f"forward(directions={directions}) must be at least 1")

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
        # Detached, since forward mode must not record what another mode would.
        thetas, state = [tree.detach(theta) for theta in thetas], tree.detach(state)

        def examine(*thetas: PyTree) -> Tensor:
            after, _ = student.course(problem, thetas, state, inner_batches, key, method="reverse")
            return problem.outer(after.params, after.buffers, outer_batch)

        told = student.taught(problem, thetas, state, inner_batches, outer_batch, key)
        cotangents = tree.zeros_like(list(thetas))
        for one in rng.split(student.own_key(key), directions):
            direction = _signs(list(thetas), one)
            rise = autodiff.jvp(examine, thetas, direction)[1]
            cotangents = tree.add(cotangents, tree.scale(rise / directions, direction))
        return told._replace(grads=tuple(cotangents)), memory

    cost = "n (K (2 F + 2 B) + 2 F), 1 F + 1 B (exam)"
    return Estimator(lambda: (), estimate, "unbiased", ("soft", "sampled", "argmax"), cost)


def _signs(like: PyTree, key: Key) -> PyTree:
    """±1 at random, shaped as `like`."""
    leaves, structure = tree.flatten(like)
    keys = rng.split(key, len(leaves))
    drawn = [
        2.0 * rng.randint(one, leaf.shape, 2, leaf.device).to(leaf.dtype) - 1.0
        for one, leaf in zip(keys, leaves, strict=True)
    ]
    return tree.unflatten(drawn, structure)
