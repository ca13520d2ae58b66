"""Exact feedback of a learner that is taken to descend by plain SGD, whatever optimiser it has."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metapl.core import tree
from metapl.core.types import Estimator, Key, MetaGradient, Problem, PyTree, TrainState
from metapl.estimators import student
from metapl.estimators.route import Lesson, require
from metapl.estimators.route import step as taken


def unadapted(*, route: str = "auto") -> Estimator:
    """`exact` without the way through the student's optimiser.

    The learner takes its true step and sits the exam after it. With v the exam's gradient there, u what `exact` pulls
    back through the optimiser, and g the gradient of the mean inner loss,

        feedback = d⟨ũ, g(lesson)⟩ / d lesson,    ũ = −(|u| / |v|) v,

    so it says what plain SGD would make of the lesson, with a step as long. The paper's estimator leaves the optimiser
    out as well; SAMA (Choe et al., NeurIPS 2023) shows for Adam what that costs. Equal to `exact` for SGD, with
    momentum and Nesterov's too, unless it is clipped; not for rules that scale each parameter by
    itself, such as Adam's.

    Args:
        route: as `exact` has it.

    Cost: 1 F + 1 B for the exam and 2 F to 3 F beyond the learner's own step, as `exact`.

    Raises:
        ValueError: an unknown route; from the estimate, more than one lesson.
    """
    require(route)

    def estimate(
        problem: Problem,
        thetas: Sequence[PyTree],
        state: TrainState,
        inner_batches: Sequence[PyTree],
        outer_batch: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[MetaGradient, PyTree]:
        theta, batch = student.single("unadapted()", thetas, inner_batches)
        step, back = taken(Lesson(problem, state, theta, batch, key), route)
        outer, v, u, scale = student.examine(problem, step, outer_batch)
        length, whole = tree.norm(u), tree.norm(v)
        descent = tree.scale(-length / whole.clamp_min(torch.finfo(whole.dtype).tiny), v)
        info = {"slope": tree.dot(descent, step.grads)}
        return MetaGradient((back(descent),), step.state, outer, step.loss, scale, info), memory

    cost = "1 F + 1 B (exam), 2 F to 3 F"
    return Estimator(lambda: (), estimate, "approximate", ("soft", "sampled", "argmax"), cost, several=False)
