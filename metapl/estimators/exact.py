"""The exact meta-gradient of one step, by one forward-mode pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metapl import gradients, tree
from metapl.estimators import student
from metapl.types import Estimator, Feedback, Key, Learner, Params, Problem, PyTree


def exact() -> Estimator:
    """Exact feedback through one step of the learner, without a double backward.

    The learner moves by update(g) with g = ∇_θ mean inner(θ, targets(lesson)). With v the exam's gradient after the
    step and u = (∂ update / ∂ g)ᵀ v, the chain rule gives

        d exam / d lesson = d⟨u, g(lesson)⟩ / d lesson = d(D_u mean inner(θ, targets(lesson))) / d lesson,

    and D_u, the directional derivative along u, is one `torch.func.jvp` of the learner at its *old* parameters. The
    lesson enters only at the loss, so the last derivative touches nothing but arrays of the size of the logits.
    For MPL's cross entropy and plain SGD it is −(lr / batch) Σ_i ∇ p_i · D_v(−log S(x_i)), D_v now along v.

    Exact for every differentiable optimiser, its warm state included, and for BatchNorm in training mode. For sampled
    labels the step is taken on the sample, and the feedback is the expectation over labels of the score-function
    gradient, given that v.

    Cost: 1 F + 1 B for the exam and one jvp (about 2 F, with the primal pass) beyond the learner's own step.
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
        lesson, batch = student.single("exact()", lessons, batches)
        step = student.step(problem, learner, tree.detach(problem.labels.teach(lesson, key)), batch)
        outer, v = student.exam_gradient(problem, step.learner, exam)
        u = step.pull(v)

        def change(lesson: PyTree) -> tuple[Tensor, tuple[()]]:
            targets = problem.labels.teach(lesson, key)

            def inner(params: Params) -> Tensor:
                return problem.inner(params, learner.buffers, targets, batch)[0].mean()

            return torch.func.jvp(inner, (learner.params,), (u,))[1], ()

        slope, _, cotangent = gradients.value_and_grad(change, lesson)
        scale = tree.norm(u) * tree.norm(step.grads)
        return Feedback((cotangent,), step.learner, outer, step.loss, scale, {"slope": slope}), memory

    return Estimator(lambda: (), estimate, "exact", ("soft", "sampled", "argmax"), "1 F + 1 B (exam), 1 jvp = 2 F")
