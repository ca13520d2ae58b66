"""A module of the zoo as metapl's problem and as plain training, and what each way must come to."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import by_differences
import torch
from by_differences import LR, MOMENTUM, Pass, Training
from problems import build as estimator_of
from steps import double_precision
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from metapl import optim
from metapl.core import losses, rng, targets
from metapl.core.types import Instance, MetaGradient, Model, Problem, TrainState
from metapl.nn import functional
from metapl.registry.errors import InputError
from zoo import BATCH, CLASSES, ZOO, Entry

NEUMANN = {"rate": 0.1, "damping": 0.5, "iterations": 3}


class Way(NamedTuple):
    """How an estimator is spelt, the labels it gets, and the quantity that it estimates."""

    spelling: str
    labels: str
    truth: str
    steps: tuple[int, ...] = (1, 2)


WAYS = {
    "exact": Way("exact", "soft", "soft"),
    "exact:route=forward": Way("exact:route=forward", "soft", "soft", (1,)),
    "exact:route=reverse": Way("exact:route=reverse", "soft", "soft", (1,)),
    "mixed": Way("exact:method=mixed", "soft", "soft", (2,)),
    "reverse": Way("exact:method=reverse", "soft", "soft", (2,)),
    "fraction": Way("exact:fraction=0.5", "soft", "fraction", (1,)),
    "unroll": Way("unroll", "soft", "soft"),
    "higher": Way("higher", "soft", "soft"),
    "score": Way("score", "argmax", "score"),
    "first-order": Way("first-order:baseline=0,reduction=sum", "argmax", "first-order", (1,)),
    "forward": Way("forward:directions=1", "soft", "forward"),
    "implicit": Way("implicit:solver=neumann,iterations=3,damping=0.5,rate=0.1", "soft", "implicit"),
}
"""Every estimator with a claim, in every method, and `implicit`, which is held to its own definition."""


def doubled(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Modules in float64 and complex128; a lazy one gets its type when it is made."""

    def make() -> nn.Module:
        with double_precision():
            return build()

    return make


@functools.cache
def model_of(name: str) -> Model:
    return functional.from_module(doubled(ZOO[name].build))


class Case(NamedTuple):
    model: Model
    problem: Problem
    state: TrainState
    thetas: list[Tensor]
    inner_batches: list[Any]
    outer_batch: Any
    entry: Entry


@functools.cache
def case_of(name: str, steps: int, kind: str) -> Case:
    entry, model = ZOO[name], model_of(name)
    generator = torch.Generator().manual_seed(5)
    thetas = [torch.randn(BATCH, CLASSES, generator=generator, dtype=torch.float64) for _ in range(steps)]
    keys = list(rng.split(rng.key(11), steps + 1))
    inner_batches = [(entry.x(10 + step), keys[step]) for step in range(steps)]
    outer_batch = (entry.x(50), torch.arange(BATCH) % CLASSES, keys[steps])
    params, buffers = model.init(rng.key(3))
    problem = problem_of(model, entry, kind)
    return Case(
        model,
        problem,
        TrainState(params, buffers, problem.optimizer.init(params)),
        thetas,
        inner_batches,
        outer_batch,
        entry,
    )


def problem_of(model: Model, entry: Entry, kind: str) -> Problem:
    def apply(params: Any, buffers: Any, x: Any, key: Tensor, *, train: bool) -> tuple[Tensor, Any]:
        return model.apply(params, buffers, x, train=train, key=key if entry.random else None)

    def inner(params: Any, buffers: Any, targets: Tensor, batch: Any) -> tuple[Tensor, Any]:
        logits, buffers = apply(params, buffers, *batch, train=True)
        return losses.cross_entropy(logits, targets), buffers

    def outer(params: Any, buffers: Any, outer_batch: Any) -> Tensor:
        x, y, key = outer_batch
        return losses.cross_entropy(apply(params, buffers, x, key, train=not entry.evaluated)[0], y).mean()

    return Problem(inner, outer, optim.sgd(LR, momentum=MOMENTUM), targets.TARGETS[kind])


def estimate(case: Case, way: str) -> MetaGradient:
    estimator = estimator_of(WAYS[way].spelling)
    instance = Instance(case.problem, case.thetas, case.state, case.inner_batches, case.outer_batch, rng.key(4))
    return estimator.estimate(instance, estimator.init())[0]


# ---------------------------------------------------------------- the reference


def masks_of(case: Case, x: Any, key: Tensor) -> tuple[Tensor, ...]:
    """What metapl's dropout layers multiply with in one pass: seen from outside, by a hook on every module."""
    found: list[Tensor] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if type(module).__name__ in ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d") and module.training:
            found.append((output != 0).to(output) / (1.0 - module.p))

    handle = register_module_forward_hook(look)
    try:
        with torch.no_grad():
            case.model.apply(case.state.params, case.state.buffers, x, train=True, key=key)
    finally:
        handle.remove()
    return tuple(found)


@functools.cache
def training_of(name: str, steps: int) -> Training:
    case = case_of(name, steps, "soft")
    entry = case.entry

    def given(x: Any, key: Tensor, *, train: bool) -> Pass:
        if not entry.random or not train:
            return Pass(x)
        return Pass(x, int(key), masks_of(case, x, key))

    x, answers, key = case.outer_batch
    return Training(
        build=doubled(entry.twin or entry.build),
        state={**case.state.params, **case.state.buffers},
        call=entry.call,
        thetas=case.thetas,
        passes=[given(*batch, train=True) for batch in case.inner_batches],
        outer_batch=given(x, key, train=not entry.evaluated),
        answers=answers,
        outer_in_training_mode=not entry.evaluated,
        fresh=entry.refused is not None,
    )


@functools.cache
def differences(name: str, steps: int) -> tuple[Tensor, by_differences.Trained]:
    return by_differences.feedback(training_of(name, steps))


@functools.cache
def credit(name: str, steps: int) -> tuple[Tensor, by_differences.Trained]:
    return by_differences.credit(training_of(name, steps))


def ended(name: str, way: str, steps: int) -> dict[str, Tensor]:
    """Parameters and buffers after plain training."""
    return (differences if WAYS[way].labels == "soft" else credit)(name, steps)[1].state


def truth(name: str, way: str, found: Tensor) -> Tensor:
    """What `found` must be; it says itself which rows or which direction an estimator drew."""
    steps, kind = len(found), WAYS[way].truth
    training = training_of(name, steps)
    if kind == "implicit":
        return by_differences.neumann(training, **NEUMANN)
    if kind in ("score", "first-order"):
        each = credit(name, steps)[0]
        each = each.sum(-1, keepdim=True).expand_as(each) if kind == "first-order" else each
        return each[..., None] * by_differences.score(training)
    whole = differences(name, steps)[0]
    if kind == "fraction":
        drawn = (found != 0).any(-1, keepdim=True)
        assert drawn.sum() == BATCH // 2
        return 2.0 * whole * drawn
    if kind == "forward":
        direction = torch.sign(found)
        return (whole * direction).sum() * direction
    return whole


def size(name: str, way: str, wanted: Tensor) -> Tensor:
    """What an error is relative to: a directional derivative can be zero by chance where the gradient is not."""
    if WAYS[way].truth != "forward":
        return wanted.norm()
    return differences(name, len(wanted))[0].norm() * wanted.numel() ** 0.5


# ---------------------------------------------------------------- the verdict

GRADIENT, STATE = 1e-5, 1e-9
"""The largest relative error of a gradient, and of a number of the train state the largest error, to count as right."""


class Outcome(NamedTuple):
    """What came of one module in one way: "right", "refused" by metapl in words, "raised" by torch, or "wrong"."""

    kind: str
    text: str

    def accepted(self, entry: Entry, way: str) -> bool:
        expected = entry.expected(way)
        if self.kind == "refused":
            return (
                expected != "right" and "\n" not in self.text and re.search(entry.refused or ".", self.text) is not None
            )
        return self.kind == "right" and expected != "refused"


def ways_of(name: str, steps: int) -> list[str]:
    """Those that go so many steps; few for layers that differ in a formula only, to save time."""
    entry = ZOO[name]
    ways = [way for way, one in WAYS.items() if steps in one.steps]
    if entry.coupled and not entry.refused:  # a part of it has another feedback, as `exact` says
        ways = [way for way in ways if way != "fraction"]
    return [way for way in ways if way in FEW] if entry.formula else ways


FEW = ("exact", "exact:route=forward", "exact:route=reverse", "mixed", "implicit")


def outcome(name: str, way: str, steps: int) -> Outcome:
    try:
        case = case_of(name, steps, WAYS[way].labels)
        before = {key: value.clone() for key, value in {**case.state.params, **case.state.buffers}.items()}
        feedback = estimate(case, way)
    except InputError as refusal:
        return Outcome("refused", str(refusal))
    except Exception as error:
        return Outcome("raised", f"{type(error).__name__}: {error}".splitlines()[0])
    if ZOO[name].expected(way) == "refused":
        return Outcome("wrong", "not refused")
    return _judged(name, way, feedback, before, case.state)


def _judged(name: str, way: str, feedback: MetaGradient, before: dict[str, Tensor], train_state: TrainState) -> Outcome:
    found = torch.stack(list(feedback.grads))
    wanted = truth(name, way, found)
    error = float((found - wanted).norm() / size(name, way, wanted))
    after, ended_in = {**feedback.state.params, **feedback.state.buffers}, ended(name, way, len(found))
    if after.keys() != ended_in.keys():
        return Outcome("wrong", f"the train state has {sorted(after.keys() ^ ended_in.keys())}, or has not")
    apart = max(float((value - ended_in[key]).abs().max()) for key, value in after.items() if value.numel())
    written = [
        key
        for key, value in {**train_state.params, **train_state.buffers}.items()
        if not torch.equal(value, before[key])
    ]
    text = (
        f"{error:.0e}" + (f", state {apart:.0e}" if apart > STATE else "") + (f", wrote {written}" if written else "")
    )
    right = error <= GRADIENT and apart <= STATE and not written and float(wanted.norm()) > 1e-6
    return Outcome("right" if right else "wrong", text)
