"""The single passes that a step of Meta Pseudo Labels is made of: operations, bytes and calls of each.

They are taken on the meta device, on tensors that have a shape and no numbers. So a ResNet-50 on images of 224 × 224
takes no memory and a few seconds, and what is counted is what the same pass takes where it is computed.
`metapl.studies.cost_model` puts a step together from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl import optim
from metapl.core import autodiff, losses, rng, tree
from metapl.core.targets import TARGETS
from metapl.core.types import Buffers, Instance, Key, Params, Problem, TrainState
from metapl.estimators import many_steps, one_step, route
from metapl.evaluation.cost import Counter, Pass
from metapl.methods.base import Trainable, apply_gradient, forward, new_train_state
from metapl.studies.meta_network import Network, network

RULE: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
"""What trains both networks."""

KINDS = ("none", "first-order", "exact", "exact:route=forward", "exact:route=reverse", "exact:route=difference")
"""The estimators that the model knows, as `--grad` has them."""


class Size(NamedTuple):
    """How many examples a step has in one process."""

    labelled: int
    unlabelled: int
    """Of all steps of the student together."""
    unroll: int = 1
    """K, the student's steps for each of the teacher's."""
    alone: bool = True
    """Whether it is the only process; others cannot use the student's own pass again for tangents."""


class Passes(NamedTuple):
    """The passes of one step, in their order."""

    teacher: Pass
    """Forward, on labelled, weak and strong views."""
    student: Pass
    """The student's step, all of them where there are several, and what the feedback needs of it."""
    exam: Pass
    """On the labelled examples, at the student's new parameters."""
    update_back: Pass
    """From the exam's gradient to the student's, through the optimiser."""
    feedback: Pass
    """From there to the pseudo labels."""
    teacher_back: Pass
    """To the teacher's gradient."""
    update: Pass
    """The teacher's optimiser, and the average of the student."""
    params: int
    """Bytes of the parameters of one network."""
    buffers: int
    """Of its running statistics."""
    states: int
    """Of parameters, buffers and optimiser of one network."""
    tangents: bool = False
    """Whether the feedback goes by forward mode."""

    @property
    def all(self) -> tuple[Pass, ...]:
        """The passes themselves."""
        return self[:7]


def measure(given: Network, size: Size, kinds: Sequence[str]) -> dict[str, Passes]:
    """The passes of one step with each of these estimators of `KINDS`.

    Of a batch in many microbatches two and three of them are counted, and the rest follows by a straight line.

    Raises:
        InputError: as `network`.
        ValueError: K does not divide the unlabelled examples, or an estimator does not take so many steps.
    """
    if size.unlabelled % size.unroll:
        raise ValueError(f"{size.unlabelled} unlabelled examples cannot be dealt out to {size.unroll} steps")
    if size.unroll > 1 and not set(kinds) <= {"none", "exact"}:
        raise ValueError(
            f"of {', '.join(kinds)} not all take {size.unroll} steps of the student for one of the teacher"
        )
    trainable = Trainable(network(given), optim.sgd(**RULE))
    part = given.microbatch
    (labelled, *more), (unlabelled, *many) = _few(size.labelled, part), _few(size.unlabelled, part * size.unroll)
    base = size._replace(labelled=labelled, unlabelled=unlabelled)
    found = start = _measured(trainable, given.shape, base, kinds)
    for name, there, other in (("labelled", size.labelled, more), ("unlabelled", size.unlabelled, many)):
        for count in other:
            larger = base._replace(labelled=count) if name == "labelled" else base._replace(unlabelled=count)
            then = _measured(trainable, given.shape, larger, kinds)
            times = (there - getattr(base, name)) / (count - getattr(base, name))
            found = {kind: _further(found[kind], start[kind], then[kind], times) for kind in kinds}
    return found


def _few(count: int, part: int) -> tuple[int, ...]:
    """A number of examples; or, of a batch in many parts, two and three parts of it, from which a line goes on."""
    return (count,) if not part or count <= 3 * part else (2 * part, 3 * part)


def _further(found: Passes, start: Passes, then: Passes, times: float) -> Passes:
    """So many times the difference of two further."""

    def moved(value: int, one: int, other: int) -> int:
        return round(value + times * (other - one))

    names = Passes._fields[: len(found.all)]
    threes = zip(found.all, start.all, then.all, strict=True)
    further: dict[str, Any] = {name: Pass(*map(moved, *three)) for name, three in zip(names, threes, strict=True)}
    return found._replace(**further)


def plain(given: Network, count: int) -> tuple[Pass, Pass]:
    """One forward pass over so many examples, and its way back to the parameters.

    Raises:
        InputError: as `network`.
    """
    model, counter = network(given), Counter()
    params, buffers = model.init(rng.key(0))
    x, key = _examples(given.shape, count), rng.key(2)
    forward_pass, (logits, _, pull) = counter(
        lambda: autodiff.vjp(lambda at: model.apply(at, buffers, x, train=True, key=key), params)
    )
    return forward_pass, counter(lambda: pull(logits))[0]


def _examples(shape: tuple[int, ...], count: int) -> Tensor:
    return torch.empty((count, *shape), device="meta")


def _measured(trainable: Trainable, shape: tuple[int, ...], size: Size, kinds: Sequence[str]) -> dict[str, Passes]:
    teacher, student = (new_train_state(trainable, rng.key(seed)) for seed in (0, 1))
    counter, key, ema = Counter(), rng.key(2), tree.map(torch.empty_like, student[:2])
    counts = {"labelled": size.labelled, "weak": size.unlabelled, "strong": size.unlabelled}
    views = {name: _examples(shape, count) for name, count in counts.items()}
    first, (logits, buffers, pull) = counter(
        lambda: autodiff.vjp(
            lambda params: forward(trainable.model, params, teacher.buffers, views, key), teacher.params
        )
    )
    theta = logits["strong"]
    instance = _instance(trainable, student, theta, views, size)
    middle = {kind: _middle(counter, instance, kind, size) for kind in kinds}
    back, grads = counter(lambda: pull(logits))
    last, _ = counter(lambda: _updated(trainable, teacher, grads, buffers, ema, student))
    params, buffers_held, states = map(_bytes, (student.params, student.buffers, student))
    held: dict[str, Any] = {
        "teacher_back": back,
        "update": last,
        "params": params,
        "buffers": buffers_held,
        "states": states,
    }
    return {
        kind: Passes(first, *between, **held, tangents=_by_tangents(instance, kind)) for kind, between in middle.items()
    }


def _by_tangents(instance: Instance, kind: str) -> bool:
    """Whether an estimator goes by forward mode; left open, networks that train convolutions do."""
    convolves = any(param.ndim > 2 for param in instance.state.params.values())
    return kind == "exact:route=forward" or (kind == "exact" and convolves and len(instance.thetas) == 1)


def _bytes(held: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in tree.leaves(held))


def _instance(
    trainable: Trainable, student: TrainState, theta: Tensor, views: dict[str, Tensor], size: Size
) -> Instance:
    def inner(params: Params, buffers: Buffers, targets: Tensor, batch: tuple[Tensor, Key]) -> tuple[Tensor, Buffers]:
        x, key = batch
        logits, after = trainable.model.apply(params, buffers, x, train=True, key=key)
        return losses.cross_entropy(logits, targets), after

    def outer(params: Params, buffers: Buffers, exam: tuple[Tensor, Tensor, Key]) -> Tensor:
        x, y, key = exam
        logits, _ = trainable.model.apply(params, buffers, x, train=True, key=key)
        return losses.cross_entropy(logits, y).mean()

    keys = rng.split(rng.key(3), size.unroll + 1)
    batches = list(zip(views["strong"].chunk(size.unroll), keys[1:], strict=True))
    y = torch.empty(size.labelled, dtype=torch.int64, device="meta")
    problem = Problem(inner, outer, trainable.optimizer, TARGETS["soft"])
    return Instance(problem, list(theta.chunk(size.unroll)), student, batches, (views["labelled"], y, keys[0]), keys[0])


def _middle(counter: Counter, instance: Instance, kind: str, size: Size) -> tuple[Pass, Pass, Pass, Pass]:
    """The student's step, the exam, the way back through the update and from there to the labels.

    Of several steps with exact feedback the first has all.
    """
    if kind == "none":
        with torch.no_grad():
            first, (state, _) = counter(lambda: many_steps.unrolled(instance, method="reverse"))
            exam, _ = counter(partial(instance.problem.outer, state.params, state.buffers, instance.outer_batch))
        return first, exam, Pass(), Pass()
    if size.unroll > 1:
        return counter(lambda: many_steps.unrolled_gradient(instance))[0], Pass(), Pass(), Pass()
    first, (step, vjp) = counter(lambda: _step(instance, kind, alone=size.alone))
    exam, (_, v) = counter(lambda: one_step.outer_gradient(instance.problem, step.state, instance.outer_batch))
    through, u = counter(lambda: step.vjp(v))
    return first, exam, through, counter(lambda: vjp(u))[0]


def _step(instance: Instance, kind: str, *, alone: bool) -> tuple[one_step.Step, Callable[[Params], Any]]:
    """The student's step, and its way back from the gradient to the pseudo labels."""
    if kind == "first-order":
        return one_step.step(instance, instance.problem.targets.apply(instance.thetas[0], instance.key)), lambda _: ()
    if alone or not _by_tangents(instance, kind):
        return route.step(instance, kind.partition("route=")[2] or "auto")
    taken, _ = route.watched_step(instance)
    problem, (theta,), state, (batch,), _, key = instance

    def tangents(u: Params) -> Any:
        along = one_step.directional_derivative(problem, state, batch, u)
        return autodiff.value_and_grad(lambda theta: along(problem.targets.apply(theta, key))[1].mean(), theta)[2]

    return taken, tangents


def _updated(
    trainable: Trainable, teacher: TrainState, grads: Params, buffers: Buffers, ema: Any, student: TrainState
) -> tuple[TrainState, Any]:
    moved = apply_gradient(trainable.optimizer, teacher, grads, buffers)
    return moved, tree.lerp(ema, (student.params, student.buffers), 0.01)
