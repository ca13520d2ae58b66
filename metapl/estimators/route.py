"""The way from a direction u of the learner's gradient g to the lesson: d⟨u, g(lesson)⟩ / d lesson, by two routes.

Forward: D_u of the losses by one forward-mode pass, then the derivative of that in the lesson, which touches nothing
but arrays of the size of the logits. One pass more, and no graph of a gradient.

Reverse: record the gradient g as a function of the lesson while the step is taken, and go back from it. Since the
lesson enters at the loss alone, no Hessian is passed. No pass more, and the graph of a gradient in memory.

Both are exact, and agree to rounding. Which one is cheaper depends on the network: the way back through a recorded
gradient is short in calls, and long in arithmetic for convolutions, whose double backward is three convolutions.
Relative to the reverse route the forward route took 1.4 of the time of a step on perceptrons and 0.6 to 0.8 on
convolutional networks (docs/results/cost.md).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import autodiff, rng, tree
from metapl.core.types import Key, Params, Problem, PyTree, TrainState
from metapl.estimators import student
from metapl.estimators.watch import Watch
from metapl.nn import functional
from metapl.registry.errors import InputError, unknown

ROUTES = ("auto", "forward", "reverse")


def require(route: str) -> None:
    """An `InputError` for a route that is not among `ROUTES`."""
    if route not in ROUTES:
        raise unknown("route", route, ROUTES)


class Lesson(NamedTuple):
    """A lesson, and all that a gradient on it is a function of."""

    problem: Problem
    state: TrainState
    theta: PyTree
    batch: PyTree
    key: Key


def step(at: Lesson, route: str = "auto") -> tuple[student.Step, Callable[[Params], PyTree]]:
    """The learner's step on the lesson, and `u ↦ d⟨u, g(lesson)⟩ / d lesson`, to be called once.

    Cost: 1 F + 1 B for the step; for the way back one jvp (3 F, its primal pass included) forward, 2 F in reverse.

    Raises:
        InputError: `route` is "forward", and forward mode is not for this network.
    """
    if not _forward_first(route, at.state.params):
        taken, recorded = student.recorded_step(*at)
        return taken, recorded if route == "reverse" else _or(recorded, lambda u: _watched_forward(at, u))
    taken, watch = watched_step(at)
    if route == "forward":
        watch.require_forward("exact(route=forward)")
        return taken, lambda u: _forward(at, u)
    if watch.functions:
        return taken, lambda u: credit(at, u)
    return taken, _or(lambda u: _forward(at, u), lambda u: credit(at, u))


def _or(one: Callable[[Params], PyTree], other: Callable[[Params], PyTree]) -> Callable[[Params], PyTree]:
    """One route, and the other where torch lacks a derivative that it needs; if it lacks both, the first one's word."""

    def back(u: Params) -> PyTree:
        try:
            return one(u)
        except (RuntimeError, InputError) as error:
            with suppress(RuntimeError, InputError):
                return other(u)
            raise error

    return back


def _watched_forward(at: Lesson, u: Params) -> PyTree:
    watched_step(at)[1].require_forward("this")
    return _forward(at, u)


def credit(at: Lesson, u: Params) -> PyTree:
    """d⟨u, g(lesson)⟩ / d lesson with g at the learner as it is, apart from any step, in reverse."""
    return student.recorded_gradient(*at)[1](u)


def watched_step(at: Lesson) -> tuple[student.Step, Watch]:
    """The step of `step`, and what has been found out about the network by taking it."""
    watch = Watch()
    targets = tree.detach(at.problem.targets.apply(at.theta, at.key))
    return student.step(watch.watching(at.problem), at.state, targets, at.batch), watch


def _forward_first(route: str, params: Params) -> bool:
    """Forward if asked for, or left open for a network that trains convolutions, whose kernels have 3 axes or more."""
    return route == "forward" or (route == "auto" and any(param.ndim > 2 for param in params.values()))


def _forward(at: Lesson, u: Params) -> PyTree:
    slopes = student.slopes(at.problem, at.state, at.batch, u)
    return autodiff.value_and_grad(
        lambda theta: (slopes(at.problem.targets.apply(theta, at.key))[1].mean(), ()), at.theta
    )[2]


def part_credit(at: Lesson, u: Params, losses: Tensor, fraction: float, key: Key) -> PyTree:
    """`credit` of a random part of the examples, by forward mode: the others get zeros.

    Each example is in the part equally often, so that the mean over the part has the mean over all as its expectation,
    if an example's loss is the same in the part as in the batch. Dropout sees to it; whatever else draws noise, or lets
    examples see each other, is found out by comparing the losses.

    Args:
        at: the whole batch, with the examples along the first axis of everything.
        u: the direction.
        losses: of the whole batch `[batch]`, from the step.
        fraction: of the examples.
        key: draws the part.

    Raises:
        InputError: the losses of the part are not those of the batch. Under a transform, which cannot look at numbers,
            the result is NaN instead.
        ValueError: an array whose first axis is not the batch.
    """
    count = len(tree.leaves(at.theta)[0])
    chosen = rng.permutation(key, count, key.device)[: max(1, round(fraction * count))]
    slopes = student.slopes(at.problem, at.state, _rows(at.batch, chosen, count), u)

    def change(theta: PyTree) -> tuple[Tensor, Tensor]:
        with functional.part_of_batch(chosen):
            found, along = slopes(_rows(at.problem.targets.apply(theta, at.key), chosen, count))
        return along.mean(), found

    _, found, cotangent = autodiff.value_and_grad(change, at.theta)
    same = _same(found, losses.index_select(0, chosen.to(losses.device)))
    if autodiff.transforming():
        return tree.map(lambda leaf: torch.where(same, leaf, torch.nan), cotangent)
    if not same:
        raise InputError(
            f"exact(fraction={fraction}): an example has another loss in a part of the batch than in the whole: the "
            "network draws noise of its own or lets examples see each other (BatchNorm): use fraction=1"
        )
    return cotangent


def _same(part: Tensor, whole: Tensor) -> Tensor:
    near = torch.finfo(whole.dtype).eps ** 0.5 * (1.0 + whole.abs())
    return ((part - whole).abs() <= near).all()


def _rows(examples: PyTree, chosen: Tensor, count: int) -> PyTree:
    def part(leaf: Tensor) -> Tensor:
        if leaf.ndim and len(leaf) == count:
            return leaf.index_select(0, chosen.to(leaf.device))
        if leaf.ndim:
            raise ValueError(f"exact(fraction=…): an array of {len(leaf)} rows in a batch of {count} examples")
        return leaf

    return tree.map(part, examples)
