"""The paper's first-order feedback: one scalar a batch, by the score function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import autodiff, rng, tree
from metapl.core.types import Claim, Estimator, Key, MetaGradient, Problem, PyTree, TrainState
from metapl.estimators import student


class Baseline(NamedTuple):
    """`mean`: the moving average of the cosine h / scale, a scalar."""

    mean: Tensor


def first_order(*, baseline: float = 0.99, reduction: str = "mean", draws: int = 1) -> Estimator:
    """The estimator of Meta Pseudo Labels (Pham et al., CVPR 2021, equation 12): REINFORCE on sampled labels.

    With ŷ drawn from the lesson, g the learner's gradient on ŷ, v the exam's gradient after the step and
    u = (∂ update / ∂ g)ᵀ v,

        h = −⟨u, g⟩  (= lr ⟨v, g⟩ for SGD),    feedback = −h ∇_lesson Σ_i log p(ŷ_i | lesson_i).

    h > 0 says that the step lowered the exam loss to first order; descending on this feedback then *raises* the
    probability of ŷ. Since one scalar is credited to the whole batch, the variance grows with the batch.

    The defaults are the paper's. With `baseline=0, reduction="sum"` it is unbiased: given v, and for an optimiser
    linear in g, its expectation over labels is the exact feedback.

    Args:
        baseline: decay of a moving average of the cosine h / scale that is subtracted from it, 0 for none. The paper
            calls it crucial, the released code has 0.99; it starts from 0 here. It is kept in units of the cosine
            because the paper takes the cosine first; times the scale, which depends on the draw, it leaves raw
            feedback with a small bias.
        reduction: "mean" over the batch as in the paper, which is 1 / batch of the true size, or "sum".
        draws: of the labels, each with a step and an exam of its own, whose feedback is averaged: the variance falls
            with their number. The learner keeps the step of the first.

    With argmax labels in place of sampled ones it is what most ports compute, and biased towards whatever the teacher
    already believes. Soft labels are refused: Σ_c sg[p_c] log p_c has a gradient of exactly zero in the logits,
    which is the released code's feedback.

    Cost: 1 F + 1 B for the exam beyond the learner's own step, and 2 F + 2 B for every further draw.

    Raises:
        ValueError: an unknown reduction, a baseline outside [0, 1), no draws, or labels without a log-probability.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"first_order(reduction={reduction!r}) must be 'sum' or 'mean'")
    if draws < 1:
        raise ValueError(f"first_order(draws={draws}) must be at least 1")
    if not 0.0 <= baseline < 1.0:
        raise ValueError(f"first_order(baseline={baseline}) must lie in [0, 1)")

    def estimate(
        problem: Problem,
        thetas: Sequence[PyTree],
        state: TrainState,
        inner_batches: Sequence[PyTree],
        outer_batch: PyTree,
        memory: Baseline,
        key: Key,
    ) -> tuple[MetaGradient, Baseline]:
        theta, batch = student.single("first_order()", thetas, inner_batches)
        log_prob = student.drawn("first_order()", problem)
        reduce = torch.sum if reduction == "sum" else torch.mean
        taken: list[MetaGradient] = []
        for index in range(draws):
            one = key if index == 0 else rng.fold_in(student.own_key(key), index)
            targets, step, outer, u, scale = student.sit(problem, theta, state, batch, outer_batch, one)
            h = -tree.dot(u, step.grads)
            credit = h
            if baseline:
                cosine = torch.where(scale > 0, h / scale, 0.0)
                credit = h - memory.mean * scale
                memory = Baseline(baseline * memory.mean + (1.0 - baseline) * cosine)
            _, _, score = autodiff.value_and_grad(_likelihood(log_prob, reduce, targets), theta)
            cotangent = tree.scale(-credit / draws, score)
            taken.append(MetaGradient((cotangent,), step.state, outer, step.loss, scale, {"slope": -h}))
        mean = functools.reduce(tree.add, (feedback.grads[0] for feedback in taken))
        return taken[0]._replace(grads=(mean,)), memory

    claim: Claim = "unbiased" if reduction == "sum" and not baseline else "approximate"

    def init() -> Baseline:
        return Baseline(torch.zeros(()))

    return Estimator(init, estimate, claim, ("sampled", "argmax"), "1 F + 1 B (exam)", several=False)


def _likelihood(
    log_prob: Callable[[PyTree, PyTree], Tensor], reduce: Callable[[Tensor], Tensor], targets: PyTree
) -> Callable[[PyTree], tuple[Tensor, tuple[()]]]:
    """`lesson ↦` log-probability of the targets, over the batch."""
    return lambda theta: (reduce(log_prob(theta, targets)), ())
