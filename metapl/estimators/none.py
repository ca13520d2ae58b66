"""No feedback: the ablation that every other estimator is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metapl.core import tree
from metapl.core.types import Estimator, Feedback, Key, Learner, Problem, PyTree
from metapl.estimators import student


def none() -> Estimator:
    """Zero feedback: the learner takes its steps and sits the exam, and the teacher is told nothing.

    Its scale is 1, not |u||g|: that would cost a backward pass, and scales nothing.

    Cost: 1 F for the exam loss, which is only logged.
    """

    def estimate(
        problem: Problem,
        lessons: Sequence[PyTree],
        learner: Learner,
        batches: Sequence[PyTree],
        exam: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[Feedback, PyTree]:
        with torch.no_grad():
            after, loss = student.course(problem, lessons, learner, batches, key, method="reverse")
            outer = problem.outer(after.params, after.buffers, exam)
        nothing = tuple(tree.zeros_like(lesson) for lesson in lessons)
        return Feedback(nothing, after, outer, loss, torch.ones_like(outer), {}), memory

    return Estimator(lambda: (), estimate, "zero", ("soft", "sampled", "argmax"), "1 F (exam)")
