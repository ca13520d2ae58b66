"""The exact meta-gradient of any number of steps, by plain reverse mode: the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metapl.core import autodiff, rng, tree
from metapl.core.types import Estimator, Key, MetaGradient, Problem, PyTree, TrainState
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
        thetas: Sequence[PyTree],
        state: TrainState,
        inner_batches: Sequence[PyTree],
        outer_batch: PyTree,
        memory: PyTree,
        key: Key,
    ) -> tuple[MetaGradient, PyTree]:
        student.require_steps(thetas, inner_batches)
        student.zero(state)
        with torch.enable_grad():
            thetas = [tree.map(lambda leaf: leaf.detach().requires_grad_(), theta) for theta in thetas]
            params = tree.map(lambda leaf: leaf.detach().requires_grad_(), state.params)
            buffers, opt_state = state.buffers, state.opt_state
            steps, inner, watched = [], [], Watch().watching(problem)
            for index, (theta, batch) in enumerate(zip(thetas, inner_batches, strict=True)):
                targets = problem.targets.apply(theta, key if len(thetas) == 1 else rng.fold_in(key, index))
                losses, buffers = watched.inner(params, buffers, targets, batch)
                found = torch.autograd.grad(
                    losses.mean(), list(params.values()), create_graph=True, materialize_grads=True
                )
                autodiff.require_twice(found)
                grads = dict(zip(params, found, strict=True))
                updates, opt_state = problem.optimizer.update(grads, opt_state, params)
                params = tree.add(params, updates)
                steps.append(grads)
                inner.append(losses.detach().mean())
            outer = problem.outer(params, buffers, outer_batch)
            leaves, structure = tree.flatten((thetas, steps))
            cotangents = torch.autograd.grad(outer, leaves, materialize_grads=True)
        feedback, u = tree.unflatten(list(cotangents), structure)
        scale = torch.stack([tree.norm(a) * tree.norm(tree.detach(b)) for a, b in zip(u, steps, strict=True)]).sum()
        after = tree.detach(TrainState(params, buffers, opt_state))
        return MetaGradient(tuple(feedback), after, outer.detach(), torch.stack(inner).mean(), scale, {}), memory

    return Estimator(lambda: (), estimate, "exact", ("soft", "sampled", "argmax"), "1 F + 1 B (exam), 2 F + 2 B a step")
