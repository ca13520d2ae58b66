"""No feedback: the ablation that every other estimator is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metapl.core import tree
from metapl.core.types import Estimator, Key, MetaGradient, Problem, PyTree, TrainState
from metapl.estimators import student


def none() -> Estimator:
    """Zero feedback: the learner takes its steps and sits the exam, and the teacher is told nothing.

    Its scale is 1, not |u||g|: that would cost a backward pass, and scales nothing.

    Cost: 1 F for the exam loss, which is only logged.
    """

    def estimate(
        problem: Problem,
        thetas: Sequence[PyTree],
        state: TrainState,
        inner_batches: Sequence[PyTree],
        outer_batch: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[MetaGradient, PyTree]:
        with torch.no_grad():
            after, loss = student.course(problem, thetas, state, inner_batches, key, method="reverse")
            outer = problem.outer(after.params, after.buffers, outer_batch)
        nothing = tuple(tree.zeros_like(theta) for theta in thetas)
        return MetaGradient(nothing, after, outer, loss, torch.ones_like(outer), {}), memory

    return Estimator(lambda: (), estimate, "zero", ("soft", "sampled", "argmax"), "1 F (exam)")
