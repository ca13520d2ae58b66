"""The vjp from the inner gradient g to the meta-parameters θ: u ↦ d⟨u, g(θ)⟩ / dθ, by three routes.

Forward: D_u of the losses by forward mode, then the derivative of that in θ, which touches nothing but arrays of the
size of the network's outputs. No graph of a gradient, and no pass of the network but that of the tangents, where what
the step has computed can be used (`metapl.estimators.tape`); where not, one pass more.

Reverse: record the gradient g as a function of θ while the step is taken, and go back from it. Since θ enters at the
loss alone, no Hessian is passed. No pass more, and the graph of a gradient in memory.

Difference: two gradients in θ at two places along u. One pass more, and nothing that a network could lack.

The first two are exact, and agree to rounding. Which one is cheaper depends on the network: the way back through a
recorded gradient is short in calls, and long in arithmetic for convolutions, whose double backward is three of them.
Relative to the reverse route the forward route took 1.4 of the time of a step on perceptrons and 0.6 to 0.8 on
convolutional networks (docs/results/cost.md).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from metapl.core import autodiff, rng, torch_private, tree
from metapl.core.types import Instance, Key, Params, PyTree
from metapl.estimators import instances, one_step
from metapl.estimators.one_step import Step
from metapl.estimators.tape import Tape
from metapl.estimators.watch import Watch
from metapl.nn import functional
from metapl.registry.errors import InputError, unknown

ROUTES = ("auto", "forward", "reverse", "difference")
"""The values of `route`."""


def require(route: str) -> None:
    """An `InputError` for a route that is not among `ROUTES`."""
    if route not in ROUTES:
        raise unknown("route", route, ROUTES)


def step(instance: Instance, route: str = "auto") -> tuple[Step, Callable[[Params], PyTree]]:
    """The inner step of an instance of one step, and `u ↦ d⟨u, g(θ)⟩ / dθ`, to be called once.

    Cost: 1 F + 1 B for the step; for the vjp 2 F forward (3 F where the step's pass cannot be used again), 2 F in
    reverse, 1 F by a difference.

    Under `torch.compile`, which does not let a network be watched, it goes in reverse.

    Raises:
        InputError: `route` is "forward", and forward mode is not for this network, or the step is being compiled.
    """
    if route == "difference":
        return _by_difference(instance)
    if torch.compiler.is_compiling():
        if route == "forward":
            raise InputError("torch.compile takes exact() in reverse: leave route=forward out")
        return one_step.recorded_step(instance)
    if not _forward_first(route, instance.state.params):
        taken, recorded = one_step.recorded_step(instance)
        return taken, recorded if route == "reverse" else _or(recorded, lambda u: _watched_forward(instance, u))
    tape = None if torch_private.inside_transform() else Tape()
    taken, watch = watched_step(instance, tape)

    def forward(u: Params) -> PyTree:
        if tape is not None:
            with suppress(InputError):
                return _linear(instance, tape, u, taken.grads)
        return _forward(instance, u)

    if route == "forward":
        watch.require_forward("exact(route=forward)")
        return taken, forward
    if watch.functions:
        return taken, lambda u: vjp(instance, u)
    return taken, _or(forward, lambda u: vjp(instance, u))


def _by_difference(instance: Instance) -> tuple[Step, Callable[[Params], PyTree]]:
    apply, (theta,), key = instance.problem.targets.apply, instance.thetas, instance.key
    targets, _, pull = autodiff.vjp(lambda theta: (apply(theta, key), ()), theta)
    taken, displaced = one_step.displaced_step(instance, targets)
    return taken, lambda u: pull(displaced(u))


def _or(one: Callable[[Params], PyTree], other: Callable[[Params], PyTree]) -> Callable[[Params], PyTree]:
    """One route, and the other where torch lacks a derivative that it needs; if it lacks both, the first one's word."""

    def either(u: Params) -> PyTree:
        try:
            return one(u)
        except (RuntimeError, InputError) as error:
            with suppress(RuntimeError, InputError):
                return other(u)
            raise error

    return either


def _watched_forward(instance: Instance, u: Params) -> PyTree:
    watched_step(instance)[1].require_forward("this")
    return _forward(instance, u)


def vjp(instance: Instance, u: Params) -> PyTree:
    """d⟨u, g(θ)⟩ / dθ with g at the parameters as they are, apart from any step, in reverse."""
    return one_step.recorded_gradient(instance)[1](u)


def watched_step(instance: Instance, tape: Tape | None = None) -> tuple[Step, Watch]:
    """The step of `step`, and what has been found out about the network by taking it."""
    watch = Watch()
    problem = instance.problem if tape is None else tape.noting(instance.problem)
    watched = instance._replace(problem=watch.watching(problem))
    return one_step.step(watched, *instances.targets(instance)), watch


def _forward_first(route: str, params: Params) -> bool:
    """Forward if asked for, or left open for a network that trains convolutions, whose kernels have 3 axes or more."""
    return route == "forward" or (route == "auto" and any(param.ndim > 2 for param in params.values()))


def _forward(instance: Instance, u: Params) -> PyTree:
    problem, (theta,), state, (batch,), _, key = instance
    derivative = one_step.directional_derivative(problem, state, batch, u)
    return autodiff.value_and_grad(lambda theta: (derivative(problem.targets.apply(theta, key))[1].mean(), ()), theta)[
        2
    ]


def _linear(instance: Instance, tape: Tape, u: Params, grads: Params) -> PyTree:
    problem, (theta,), _, _, _, key = instance

    def change(theta: PyTree) -> Tensor:
        along = tape.along(u, problem.targets.apply(theta, key)).mean()
        if along.device.type == "cpu":  # elsewhere to look at a number is to wait for it
            _require_slope(along.detach(), u, grads)
        return along

    return autodiff.value_and_grad(change, theta)[2]


def _require_slope(found: Tensor, u: Params, grads: Params) -> None:
    """The mean of D_u at the step's own targets is ⟨u, g⟩, which reverse mode has found."""
    near = torch.finfo(found.dtype).eps ** 0.5 * tree.norm(u) * tree.norm(grads)
    if (found - tree.dot(u, grads)).abs() > near:
        raise InputError("the tangents do not add up to the gradient: use another route")


def part_vjp(instance: Instance, u: Params, losses: Tensor, fraction: float, key: Key) -> PyTree:
    """`vjp` of a random part of the examples, by forward mode: the others get zeros.

    Each example is in the part equally often, so that the mean over the part has the mean over all as its expectation,
    if an example's loss is the same in the part as in the batch. Dropout sees to it; whatever else draws noise, or lets
    examples see each other, is found out by comparing the losses.

    Args:
        instance: of one step and the whole batch, with the examples along the first axis of everything.
        u: the direction.
        losses: of the whole batch `[batch]`, from the step.
        fraction: of the examples.
        key: draws the part.

    Raises:
        InputError: the losses of the part are not those of the batch. Under a transform, which cannot look at numbers,
            the result is NaN instead.
        ValueError: an array whose first axis is not the batch.
    """
    problem, (theta,), state, (batch,), _, target_key = instance
    count = len(tree.leaves(theta)[0])
    chosen = rng.permutation(key, count, key.device)[: max(1, round(fraction * count))]
    derivative = one_step.directional_derivative(problem, state, _rows(batch, chosen, count), u)

    def change(theta: PyTree) -> tuple[Tensor, Tensor]:
        with functional.part_of_batch(chosen):
            found, along = derivative(_rows(problem.targets.apply(theta, target_key), chosen, count))
        return along.mean(), found

    _, found, grad = autodiff.value_and_grad(change, theta)
    same = _same(found, losses.index_select(0, chosen.to(losses.device)))
    if torch_private.inside_transform():
        return tree.map(lambda leaf: torch.where(same, leaf, torch.nan), grad)
    if not same:
        raise InputError(
            f"exact(fraction={fraction}): an example has another loss in a part of the batch than in the whole: the "
            "network draws noise of its own or lets examples see each other (BatchNorm): use fraction=1"
        )
    return grad


def _same(part: Tensor, whole: Tensor) -> Tensor:
    near: Tensor = torch.finfo(whole.dtype).eps ** 0.5 * (1.0 + whole.abs())
    return torch.all((part - whole).abs() <= near)


def _rows(examples: PyTree, chosen: Tensor, count: int) -> PyTree:
    def part(leaf: Tensor) -> Tensor:
        if leaf.ndim and len(leaf) == count:
            return leaf.index_select(0, chosen.to(leaf.device))
        if leaf.ndim:
            raise ValueError(f"exact(fraction=…): an array of {len(leaf)} rows in a batch of {count} examples")
        return leaf

    return tree.map(part, examples)
