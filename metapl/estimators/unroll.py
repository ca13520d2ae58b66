"""The exact meta-gradient of any number of steps, by plain reverse mode: the reference."""

from __future__ import annotations

import torch

from metapl.core import autodiff, rng, tree
from metapl.core.types import Estimator, Instance, MetaGradient, PyTree, TrainState
from metapl.estimators import instances
from metapl.estimators.watch import Watch


def unroll() -> Estimator:
    """The exact meta-gradient by recording every inner step and going backwards through all of it.

    The textbook way, kept as short as it can be, so that the other estimators have something to be held against.
    torch does not differentiate BatchNorm's running statistics, so an outer loss in evaluation mode after several steps
    misses how they depend on θ. Not usable inside a `torch.func` transform; `exact` is.

    Cost for K steps: a double backward a step (about 2 F + 2 B), and K graphs of memory.
    """
    cost = "1 F + 1 B (outer), 2 F + 2 B a step"
    return Estimator(lambda: (), _estimate, "exact", ("soft", "sampled", "argmax"), cost)


@autodiff.explained()
def _estimate(instance: Instance, memory: PyTree) -> tuple[MetaGradient, PyTree]:
    instances.require_steps(instance)
    instances.zero(instance.state)
    problem, thetas, (params, buffers, opt_state), inner_batches, outer_batch, key = instance
    with torch.enable_grad():
        thetas = [tree.map(lambda leaf: leaf.detach().requires_grad_(), theta) for theta in thetas]
        params = tree.map(lambda leaf: leaf.detach().requires_grad_(), params)
        steps, inner, watched = [], [], Watch().watching(problem)
        for index, (theta, batch) in enumerate(zip(thetas, inner_batches, strict=True)):
            targets = problem.targets.apply(theta, key if len(thetas) == 1 else rng.fold_in(key, index))
            losses, buffers = watched.inner(params, buffers, targets, batch)
            found = torch.autograd.grad(losses.mean(), list(params.values()), create_graph=True, materialize_grads=True)
            autodiff.require_twice(found)
            grads = dict(zip(params, found, strict=True))
            updates, opt_state = problem.optimizer.update(grads, opt_state, params)
            params = tree.add(params, updates)
            steps.append(grads)
            inner.append(losses.detach().mean())
        outer = problem.outer(params, buffers, outer_batch)
        leaves, structure = tree.flatten((thetas, steps))
        cotangents = torch.autograd.grad(outer, leaves, materialize_grads=True)
    to_thetas, u = tree.unflatten(list(cotangents), structure)
    scale = torch.stack([tree.norm(a) * tree.norm(tree.detach(b)) for a, b in zip(u, steps, strict=True)]).sum()
    after = tree.detach(TrainState(params, buffers, opt_state))
    return MetaGradient(tuple(to_thetas), after, outer.detach(), torch.stack(inner).mean(), scale, {}), memory
