"""The paper's first-order feedback: one scalar a batch, by the score function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metapl import gradients, tree
from metapl.estimators import student
from metapl.types import Claim, Estimator, Feedback, Key, Learner, Problem, PyTree


class Baseline(NamedTuple):
    """`mean`: the moving average of the cosine h / scale, a scalar."""

    mean: Tensor


def first_order(*, baseline: float = 0.99, reduction: str = "mean") -> Estimator:
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

    With argmax labels in place of sampled ones it is what most ports compute, and biased towards whatever the teacher
    already believes. Soft labels are refused: Σ_c sg[p_c] log p_c has a gradient of exactly zero in the logits,
    which is the released code's feedback.

    Cost: 1 F + 1 B for the exam beyond the learner's own step.

    Raises:
        ValueError: an unknown reduction, a baseline outside [0, 1), or labels without a log-probability.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"first_order(reduction={reduction!r}) must be 'sum' or 'mean'")
    if not 0.0 <= baseline < 1.0:
        raise ValueError(f"first_order(baseline={baseline}) must lie in [0, 1)")

    def estimate(
        problem: Problem,
        lessons: Sequence[PyTree],
        learner: Learner,
        batches: Sequence[PyTree],
        exam: PyTree,
        memory: Baseline,
        key: Key,
    ) -> tuple[Feedback, Baseline]:
        lesson, batch = student.single("first_order()", lessons, batches)
        log_prob = student.drawn("first_order()", problem)
        targets, step, outer, u, scale = student.sit(problem, lesson, learner, batch, exam, key)
        h = -tree.dot(u, step.grads)
        credit = h
        if baseline:
            cosine = torch.where(scale > 0, h / torch.where(scale > 0, scale, 1.0), 0.0)
            credit = h - memory.mean * scale
            memory = Baseline(baseline * memory.mean + (1.0 - baseline) * cosine)
        reduce = torch.sum if reduction == "sum" else torch.mean
        _, _, score = gradients.value_and_grad(lambda lesson: (reduce(log_prob(lesson, targets)), ()), lesson)
        feedback = Feedback((tree.scale(-credit, score),), step.learner, outer, step.loss, scale, {"slope": -h})
        return feedback, memory

    claim: Claim = "unbiased" if reduction == "sum" and not baseline else "approximate"

    def init() -> Baseline:
        return Baseline(torch.zeros(()))

    return Estimator(init, estimate, claim, ("sampled", "argmax"), "1 F + 1 B (exam)", several=False)
