"""Exact feedback of a learner that is taken to descend by plain SGD, whatever optimiser it has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metapl import gradients, tree
from metapl.estimators import student
from metapl.types import Estimator, Feedback, Key, Learner, Problem, PyTree


def unadapted() -> Estimator:
    """`exact` without the way through the student's optimiser.

    The learner takes its true step and sits the exam after it. With v the exam's gradient there, u what `exact` pulls
    back through the optimiser, and g the gradient of the mean inner loss,

        feedback = d⟨ũ, g(lesson)⟩ / d lesson,    ũ = −(|u| / |v|) v,

    so it says what plain SGD would make of the lesson, with a step as long. The paper's estimator leaves the optimiser
    out as well; SAMA (Choe et al., NeurIPS 2023) shows for Adam what that costs. Equal to `exact` for SGD, with
    momentum and Nesterov's too, unless it is clipped; not for rules that scale each parameter by
    itself, such as Adam's.

    Cost: 1 F + 1 B for the exam and one jvp (about 2 F) beyond the learner's own step, as `exact`.

    Raises:
        ValueError: from the estimate, if there is more than one lesson.
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
        lesson, batch = student.single("unadapted()", lessons, batches)
        step = student.step(problem, learner, student.targets(problem, [lesson], key)[0], batch)
        outer, v = student.exam_gradient(problem, step.learner, exam)
        length, whole = tree.norm(step.pull(v)), tree.norm(v)
        descent = tree.scale(-length / whole.clamp_min(torch.finfo(whole.dtype).tiny), v)

        def change(lesson: PyTree) -> tuple[Tensor, tuple[()]]:
            return student.slope(problem, learner, batch, descent)(problem.labels.teach(lesson, key)), ()

        slope, _, cotangent = gradients.value_and_grad(change, lesson)
        scale = length * tree.norm(step.grads)
        return Feedback((cotangent,), step.learner, outer, step.loss, scale, {"slope": slope}), memory

    cost = "1 F + 1 B (exam), 1 jvp = 2 F"
    return Estimator(lambda: (), estimate, "approximate", ("soft", "sampled", "argmax"), cost, several=False)
