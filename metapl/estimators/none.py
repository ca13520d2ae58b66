"""No feedback: the ablation that every other estimator is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metapl import tree
from metapl.estimators import student
from metapl.types import Estimator, Feedback, Key, Learner, Problem, PyTree


def none() -> Estimator:
    """Zero feedback: the learner takes its step and sits the exam, and the teacher is told nothing.

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
        lesson, batch = student.single("none()", lessons, batches)
        step = student.step(problem, learner, tree.detach(problem.labels.teach(lesson, key)), batch)
        with torch.no_grad():
            outer = problem.outer(step.learner.params, step.learner.buffers, exam)
        return Feedback((tree.zeros_like(lesson),), step.learner, outer, step.loss, torch.ones_like(outer), {}), memory

    return Estimator(lambda: (), estimate, "zero", ("soft", "sampled", "argmax"), "1 F (exam)")
