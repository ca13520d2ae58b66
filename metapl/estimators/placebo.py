"""A control: a meta-gradient of the right length that says nothing of the example it is given to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from metapl.core import rng, tree
from metapl.core.types import Estimator, Instance, Key, MetaGradient, PyTree
from metapl.estimators import instances
from metapl.estimators.exact import exact


def _signs(leaf: Tensor, key: Key) -> Tensor:
    drawn = rng.uniform(key, (len(leaf),), leaf.dtype, leaf.device)
    return leaf * torch.where(drawn < 0.5, -1.0, 1.0).to(leaf)[(..., *[None] * (leaf.ndim - 1))]


def _examples(leaf: Tensor, key: Key) -> Tensor:
    return leaf.index_select(0, rng.permutation(key, len(leaf), leaf.device))


KINDS: dict[str, Callable[[Tensor, Key], Tensor]] = {"signs": _signs, "examples": _examples}
"""The ways to spoil feedback, by name."""


def placebo(*, kind: str = "signs", route: str = "auto") -> Estimator:
    """The exact meta-gradient, spoilt: whoever finds that it helps as much has found that noise helps.

    Args:
        kind: "signs" turns the meta-gradient of each example round with probability one half, so that its expectation
            is zero; "examples" deals it out to other examples of the batch, which leaves its mean over the batch: that
            a class is wanted more often, say.
        route: as `exact` has it.

    Cost: that of `exact`, for one step. θ must have the examples along its first axis.

    Raises:
        ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"placebo(kind={kind!r}) must be {' or '.join(KINDS)}")
    right = exact(route=route)
    return Estimator(right.init, partial(_estimate, right=right, kind=kind), "wrong", right.targets, right.cost)


def _estimate(instance: Instance, memory: PyTree, *, right: Estimator, kind: str) -> tuple[MetaGradient, PyTree]:
    found, memory = right.estimate(instance, memory)
    keys = instances.target_keys(instances.own_key(instance.key), len(instance.thetas))
    spoilt = tuple(
        tree.map(lambda leaf, one=one: KINDS[kind](leaf, one), grad)
        for grad, one in zip(found.grads, keys, strict=True)
    )
    return found._replace(grads=spoilt), memory
