"""One inner step and the outer loss after it, with the way back to the meta-parameters θ or to the inner gradient g.

The inner parameters are w. A step moves them by update(g) with g = ∇_w mean inner(w, targets(θ)); v is the gradient of
the outer loss with respect to the new parameters, and u = (∂ update / ∂ g)ᵀ v its gradient with respect to g.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import autodiff, forward_mode, hvp, inside, tree
from metapl.core.types import Instance, Params, Problem, PyTree, TrainState
from metapl.estimators.instances import single, targets, zero
from metapl.estimators.watch import watching_hooks


class Step(NamedTuple):
    """An inner step."""

    state: TrainState
    """After the step."""
    grads: Params
    """g, the gradient of the mean inner loss before the step."""
    losses: Tensor
    """The inner losses `[batch]` before the step."""
    vjp: Callable[[Params], Params]
    """v ↦ u = (∂ update / ∂ g)ᵀ v: the outer loss's gradient with respect to g. For plain SGD u = −lr · v."""

    @property
    def loss(self) -> Tensor:
        """The mean inner loss before the step, a scalar."""
        return self.losses.mean()


def mean_loss(
    problem: Problem, buffers: PyTree, batch: PyTree, params: Params, targets: PyTree
) -> tuple[Tensor, tuple[Tensor, PyTree]]:
    """The mean inner loss; and the losses `[batch]` and the buffers after the pass."""
    with watching_hooks():
        losses, after = problem.inner(params, buffers, targets, batch)
    return losses.mean(), (losses, after)


def _moved(instance: Instance, grads: Params, losses: Tensor, buffers: PyTree) -> Step:
    params, _, opt_state = instance.state
    update = instance.problem.optimizer.update
    updates, after, vjp = autodiff.vjp(lambda g: update(g, opt_state, params), grads)
    moved = TrainState(tree.add(tree.detach(params), updates), buffers, after)
    return Step(moved, grads, losses, vjp)


@autodiff.explained()
def step(instance: Instance, targets: PyTree) -> Step:
    """Take one step on the mean of the inner losses at these targets, which are data.

    Cost: 1 F + 1 B, and the graph of the (elementwise) update.
    """
    problem, _, state, (batch,), _, _ = instance
    zero(state)
    loss = partial(mean_loss, problem, state.buffers, batch)
    _, (losses, buffers), grads = autodiff.value_and_grad(lambda params: loss(params, targets), state.params)
    return _moved(instance, grads, losses, buffers)


def recorded_gradient(instance: Instance) -> tuple[tuple[Params, Tensor, PyTree], Callable[[Params], PyTree]]:
    """g, the losses `[batch]` and the buffers after the pass; and the vjp from g to θ, to be called once.

    Reverse mode over reverse mode. θ enters at the loss alone, so that u ↦ d⟨u, g⟩ / dθ passes each layer twice and no
    Hessian. Cost: 1 F + 1 B and the graph of a gradient; the vjp 2 F.
    """
    problem, (theta,), state, (batch,), _, key = instance
    zero(state)
    loss = partial(mean_loss, problem, state.buffers, batch)
    grads, (losses, buffers), vjp = autodiff.vjp(
        lambda theta: inside.gradient(loss, state.params, problem.targets.apply(theta, key)), theta
    )
    return (grads, losses, buffers), vjp


def recorded_step(instance: Instance) -> tuple[Step, Callable[[Params], PyTree]]:
    """A step, and the vjp from its gradient to θ; see `recorded_gradient`."""
    found, vjp = recorded_gradient(instance)
    return _moved(instance, *found), vjp


@autodiff.explained()
def outer_gradient(problem: Problem, state: TrainState, outer_batch: PyTree) -> tuple[Tensor, Params]:
    """The outer loss of a state, and v, its gradient with respect to the parameters. Cost: 1 F + 1 B."""

    def loss(params: Params) -> tuple[Tensor, tuple[()]]:
        with watching_hooks():
            return problem.outer(params, state.buffers, outer_batch), ()

    value, _, grads = autodiff.value_and_grad(loss, state.params)
    return value, grads


class Outer(NamedTuple):
    """The outer loss after a step, and its gradients."""

    loss: Tensor
    v: Params
    """Its gradient with respect to the parameters after the step."""
    u: Params
    """Its gradient with respect to the inner gradient g."""
    scale: Tensor
    """|u||g|."""


def outer_after(instance: Instance, step: Step) -> Outer:
    """The outer loss after a step, and its gradient pulled back to g. Cost: 1 F + 1 B."""
    loss, v = outer_gradient(instance.problem, step.state, instance.outer_batch)
    u = step.vjp(v)
    return Outer(loss, v, u, tree.norm(u) * tree.norm(step.grads))


class StepAndOuter(NamedTuple):
    """A step and the outer loss after it, as most one-step estimators need them."""

    targets: PyTree
    """Detached."""
    step: Step
    outer: Outer


def step_and_outer(instance: Instance) -> StepAndOuter:
    """Draw the targets, take the step, and pull the gradient of the outer loss back to g. Cost: 2 F + 2 B."""
    (drawn,) = targets(instance)
    taken = step(instance, drawn)
    return StepAndOuter(drawn, taken, outer_after(instance, taken))


def displaced_step(instance: Instance, targets: PyTree) -> tuple[Step, Callable[[Params], PyTree]]:
    """A step at these targets, and u ↦ d⟨u, g⟩ / d targets by a one-sided difference, to be called once.

    (∇_targets mean inner(w + εu) − ∇_targets mean inner(w)) / ε: the step itself gives the gradient at w. |εu| is the
    root of the rounding error, 3.5e-4 in single precision, where the errors of curvature and of rounding meet.

    Cost: 1 F + 1 B for the step, 1 F for the difference, of which no graph is kept but the loss's.
    """
    problem, _, state, (batch,), _, _ = instance
    radius = torch.finfo(zero(state).dtype).eps ** 0.5
    loss = partial(mean_loss, problem, state.buffers, batch)
    _, (losses, buffers), (grads, here) = autodiff.value_and_grad(lambda at: loss(*at), (state.params, targets))

    def vjp(u: Params) -> PyTree:
        length = tree.norm(u)
        moved = tree.add(state.params, tree.scale(tree.safe_divide(radius, length), u))
        _, _, there = autodiff.value_and_grad(lambda targets: loss(moved, targets), targets)
        return tree.scale(length / radius, tree.sub(there, here))

    return _moved(instance, grads, losses, buffers), vjp


def directional_derivative(
    problem: Problem, state: TrainState, batch: PyTree, u: Params
) -> Callable[[PyTree], tuple[Tensor, Tensor]]:
    """`targets ↦` the inner losses `[batch]` and D_u of them, along u by forward mode. Cost: 2 F."""

    def along(targets: PyTree) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = forward_mode.jvp(
            lambda params: problem.inner(params, state.buffers, targets, batch)[0], (state.params,), (u,)
        )
        return found

    return along


def difference_of_gradients(instance: Instance, u: Params, radius: float) -> PyTree:
    """d(D_u mean inner) / dθ with D_u by a central difference of gradients in θ, `radius` wide. Cost: 2 F."""
    theta, batch = single("difference_of_gradients()", instance)
    problem, state, key = instance.problem, instance.state, instance.key
    leaves, structure = tree.flatten(state.params)

    def loss(params: Params, theta: PyTree) -> tuple[Tensor, tuple[()]]:
        return problem.inner(params, state.buffers, problem.targets.apply(theta, key), batch)[0].mean(), ()

    def gradient(*at: Tensor) -> tuple[Tensor, ...]:
        params = tree.unflatten(list(at), structure)
        return tuple(tree.leaves(autodiff.value_and_grad(partial(loss, params), theta)[2]))

    found = hvp.difference(radius)(gradient, leaves, tree.leaves(u))
    return tree.unflatten(list(found), tree.flatten(theta)[1])
