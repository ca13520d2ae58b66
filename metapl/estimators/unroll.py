"""The exact meta-gradient of any number of steps, by plain reverse mode: the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metapl.core import autodiff, rng, tree
from metapl.core.types import Estimator, Feedback, Key, Learner, Problem, PyTree
from metapl.estimators import student
from metapl.estimators.watch import Watch


def unroll() -> Estimator:
    """Exact feedback by recording every step of the learner and going backwards through all of it.

    The textbook way, kept as short as it can be, so that the other estimators have something to be held against.
    torch does not differentiate BatchNorm's running statistics, so an exam in evaluation mode after several steps
    misses how they depend on the lessons. Not usable inside a `torch.func` transform; `exact` is.

    Cost for K steps: a double backward a step (about 2 F + 2 B), and K graphs of memory.
    """

    @autodiff.explained()
    def estimate(
        problem: Problem,
        lessons: Sequence[PyTree],
        learner: Learner,
        batches: Sequence[PyTree],
        exam: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[Feedback, PyTree]:
        student.require_steps(lessons, batches)
        student.zero(learner)
        with torch.enable_grad():
            lessons = [tree.map(lambda leaf: leaf.detach().requires_grad_(), lesson) for lesson in lessons]
            params = tree.map(lambda leaf: leaf.detach().requires_grad_(), learner.params)
            buffers, opt_state = learner.buffers, learner.opt_state
            steps, inner, watched = [], [], Watch().watching(problem)
            for index, (lesson, batch) in enumerate(zip(lessons, batches, strict=True)):
                targets = problem.labels.teach(lesson, key if len(lessons) == 1 else rng.fold_in(key, index))
                losses, buffers = watched.inner(params, buffers, targets, batch)
                found = torch.autograd.grad(
                    losses.mean(), list(params.values()), create_graph=True, allow_unused=True, materialize_grads=True
                )
                autodiff.require_twice(found)
                grads = dict(zip(params, found, strict=True))
                updates, opt_state = problem.optimizer.update(grads, opt_state, params)
                params = tree.add(params, updates)
                steps.append(grads)
                inner.append(losses.detach().mean())
            outer = problem.outer(params, buffers, exam)
            leaves, structure = tree.flatten((lessons, steps))
            cotangents = torch.autograd.grad(outer, leaves, allow_unused=True, materialize_grads=True)
        feedback, u = tree.unflatten(list(cotangents), structure)
        scale = torch.stack([tree.norm(a) * tree.norm(tree.detach(b)) for a, b in zip(u, steps, strict=True)]).sum()
        after = tree.detach(Learner(params, buffers, opt_state))
        return Feedback(tuple(feedback), after, outer.detach(), torch.stack(inner).mean(), scale, {}), memory

    return Estimator(lambda: (), estimate, "exact", ("soft", "sampled", "argmax"), "1 F + 1 B (exam), 2 F + 2 B a step")
