"""Forward gradients: directional derivatives of the outer loss along random directions of the meta-parameters."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from metapl.core import autodiff, forward_mode, rng, tree
from metapl.core.types import Estimator, Instance, Key, MetaGradient, PyTree
from metapl.estimators import instances, many_steps


def forward(*, directions: int = 8) -> Estimator:
    """Forward gradient (Baydin et al., 2022; for bilevel problems (FG)²U, Shen et al., ICML 2024).

    meta-gradient = mean over directions r of (D_r outer) r, with every entry of r ±1 at random. Unbiased, since
    E[r rᵀ] is the identity; for d numbers in θ and n directions the variance is (d − 1) / n times the squared length
    of the gradient. Nothing is kept but the train state and its tangent, however many steps there are.

    Args:
        directions: n, how many.

    Cost: n times K (2 F + 2 B) + 2 F by forward mode over reverse mode, and 1 B for the scale.

    Raises:
        ValueError: less than one direction.
    """
    if directions < 1:
        raise ValueError(f"forward(directions={directions}) must be at least 1")
    estimate, cost = partial(_estimate, directions=directions), "n (K (2 F + 2 B) + 2 F), 1 F + 1 B (outer)"
    return Estimator(lambda: (), estimate, "unbiased", ("soft", "sampled", "argmax"), cost)


@autodiff.explained()
def _estimate(instance: Instance, memory: PyTree, *, directions: int) -> tuple[MetaGradient, PyTree]:
    instances.require_steps(instance)
    # Detached, since forward mode must not record what another mode would.
    thetas = [tree.detach(theta) for theta in instance.thetas]
    detached = instance._replace(thetas=thetas, state=tree.detach(instance.state))

    def outer(*thetas: PyTree) -> Tensor:
        after, _ = many_steps.unrolled(detached._replace(thetas=thetas), method="reverse")
        return instance.problem.outer(after.params, after.buffers, instance.outer_batch)

    found = many_steps.steps_and_outer(detached)
    grads = tree.zeros_like(thetas)
    for one in rng.split(instances.own_key(instance.key), directions):
        direction = _signs(thetas, one)
        rise = forward_mode.jvp(outer, thetas, direction)[1]
        grads = tree.add(grads, tree.scale(rise / directions, direction))
    return found._replace(grads=tuple(grads)), memory


def _signs(like: PyTree, key: Key) -> PyTree:
    """±1 at random, shaped as `like`."""
    leaves, structure = tree.flatten(like)
    keys = rng.split(key, len(leaves))
    drawn = [
        2.0 * rng.randint(one, leaf.shape, 2, leaf.device).to(leaf.dtype) - 1.0
        for one, leaf in zip(keys, leaves, strict=True)
    ]
    return tree.unflatten(drawn, structure)
