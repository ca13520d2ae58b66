"""The exact meta-gradient: of one step by one forward-mode pass, of several by replaying them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metapl import gradients, rng, tree
from metapl.estimators import student
from metapl.types import Estimator, Feedback, Key, Learner, Params, Problem, PyTree
from metapl.unroll import unroll


def exact() -> Estimator:
    """Exact feedback through the learner's steps; through a single one without a double backward.

    The learner moves by update(g) with g = ∇_θ mean inner(θ, targets(lesson)). With v the exam's gradient after the
    step and u = (∂ update / ∂ g)ᵀ v, the chain rule gives

        d exam / d lesson = d⟨u, g(lesson)⟩ / d lesson
                          = d(D_u mean inner(θ, targets(lesson))) / d lesson,

    and D_u, the directional derivative along u, is one `torch.func.jvp` of the learner at its *old* parameters. The
    lesson enters only at the loss, so the last derivative touches nothing but arrays of the size of the logits.
    For MPL's cross entropy and plain SGD it is −(lr / batch) Σ_i ∇ p_i · D_v(−log S(x_i)), D_v now along v.
    Several steps are replayed one by one on the way back, by `metapl.unroll.unroll`.

    Exact for every differentiable optimiser, its warm state included, and for BatchNorm in training mode. For sampled
    labels the step is taken on the sample, and the feedback is the expectation over labels of the score-function
    gradient, given that v.

    Cost: 1 F + 1 B for the exam and one jvp (about 2 F, with the primal pass) beyond the learner's own step. For K > 1
    steps a double backward a step (about 2 F + 2 B), and the memory of K learners and one step.
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
        if len(lessons) == len(batches) == 1:
            return _one(problem, lessons[0], learner, batches[0], exam, key), memory
        return _several(problem, lessons, learner, batches, exam, key), memory

    return Estimator(lambda: (), estimate, "exact", ("soft", "sampled", "argmax"), "1 F + 1 B (exam), 1 jvp = 2 F")


def _one(problem: Problem, lesson: PyTree, learner: Learner, batch: PyTree, exam: PyTree, key: Key) -> Feedback:
    _, step, outer, u, scale = student.sit(problem, lesson, learner, batch, exam, key)

    def change(lesson: PyTree) -> tuple[Tensor, tuple[()]]:
        targets = problem.labels.teach(lesson, key)

        def inner(params: Params) -> Tensor:
            return problem.inner(params, learner.buffers, targets, batch)[0].mean()

        return torch.func.jvp(inner, (learner.params,), (u,))[1], ()

    slope, _, cotangent = gradients.value_and_grad(change, lesson)
    return Feedback((cotangent,), step.learner, outer, step.loss, scale, {"slope": slope})


def _several(
    problem: Problem, lessons: Sequence[PyTree], learner: Learner, batches: Sequence[PyTree], exam: PyTree, key: Key
) -> Feedback:
    """All steps by `unroll`. A nudge of zero, added to each g, has u as its cotangent, which the scale needs."""
    keys = [rng.fold_in(key, index) for index in range(len(lessons))]
    nudges = [tree.zeros_like(learner.params) for _ in lessons]

    def step(carry: tuple[Learner, Tensor], given: PyTree) -> tuple[Learner, Tensor]:
        (params, buffers, opt_state), log = carry
        lesson, nudge, batch, key = given
        targets = problem.labels.teach(lesson, key)

        def inner(params: Params) -> tuple[Tensor, PyTree]:
            losses, after = problem.inner(params, buffers, targets, batch)
            return losses.mean(), (losses.detach().mean(), after)

        grads, (loss, buffers) = torch.func.grad(inner, has_aux=True)(params)
        updates, opt_state = problem.optimizer.update(tree.add(grads, nudge), opt_state, params)
        told = torch.stack([loss, tree.norm(tree.detach(grads))])
        return Learner(tree.add(params, updates), buffers, opt_state), torch.cat([log[1:], told[None]])

    def examine(told: tuple[Sequence[PyTree], Sequence[Params]]) -> tuple[Tensor, PyTree]:
        empty = next(iter(learner.params.values())).new_zeros(len(lessons), 2)
        after, log = unroll(step, (learner, empty), list(zip(*told, batches, keys, strict=True)))
        return problem.outer(after.params, after.buffers, exam), (after, log)

    outer, (after, log), (cotangents, u) = gradients.value_and_grad(examine, (list(lessons), nudges))
    scale = sum(tree.norm(one) * size for one, size in zip(u, log[:, 1], strict=True))
    return Feedback(tuple(cotangents), after, outer, log[:, 0].mean(), torch.as_tensor(scale), {})
