"""A control: feedback of the right length that says nothing of the example it is given to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metapl.core import rng, tree
from metapl.core.types import Estimator, Key, MetaGradient, Problem, PyTree, TrainState
from metapl.estimators import student
from metapl.estimators.exact import exact


def _signs(leaf: Tensor, key: Key) -> Tensor:
    drawn = rng.uniform(key, (len(leaf),), leaf.dtype, leaf.device)
    return leaf * torch.where(drawn < 0.5, -1.0, 1.0).to(leaf)[(..., *[None] * (leaf.ndim - 1))]


def _examples(leaf: Tensor, key: Key) -> Tensor:
    return leaf.index_select(0, rng.permutation(key, len(leaf), leaf.device))


KINDS: dict[str, Callable[[Tensor, Key], Tensor]] = {"signs": _signs, "examples": _examples}


def placebo(*, kind: str = "signs", route: str = "auto") -> Estimator:
    """Exact feedback, spoilt: whoever finds that it helps as much has found that noise helps.

    Args:
        kind: "signs" turns the feedback of each example round with probability one half, so that its expectation is
            zero; "examples" deals it out to other examples of the batch, which leaves its mean over the batch: that a
            class is wanted more often, say.
        route: as `exact` has it.

    Cost: that of `exact`, for one step. Lessons must have the examples along their first axis.

    Raises:
        ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"placebo(kind={kind!r}) must be {' or '.join(KINDS)}")
    right = exact(route=route)

    def estimate(
        problem: Problem,
        thetas: Sequence[PyTree],
        state: TrainState,
        inner_batches: Sequence[PyTree],
        outer_batch: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[MetaGradient, PyTree]:
        feedback, memory = right.estimate(problem, thetas, state, inner_batches, outer_batch, memory, key)
        keys = student.label_keys(student.own_key(key), len(thetas))
        spoilt = tuple(
            tree.map(lambda leaf, one=one: KINDS[kind](leaf, one), theta)
            for theta, one in zip(feedback.grads, keys, strict=True)
        )
        return feedback._replace(grads=spoilt), memory

    return Estimator(right.init, estimate, "wrong", right.targets, right.cost)
