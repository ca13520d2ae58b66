"""What a whole step of Meta Pseudo Labels costs with each estimator, and what it costs without metapl.

Every step is the one that `metapl train` takes, on a batch of random numbers: teacher on three views, student, exam,
both optimisers, moving average. Operations and memory are counted and are the same on every machine of one kind; times
are for comparison within one measurement, in which all steps take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from metapl import models, optim
from metapl.core import rng, tree
from metapl.core.targets import TARGETS
from metapl.core.types import Estimator, Key, Model, PyTree
from metapl.data.augment.base import Augment, identity
from metapl.data.loader import Batch
from metapl.estimators import AVAILABLE
from metapl.evaluation import cost
from metapl.methods.base import Method, Recipe, Trainable
from metapl.methods.mpl import meta_pseudo_labels
from metapl.nn import functional
from metapl.nn.layout import channels_last
from metapl.registry import notation
from metapl.registry.errors import InputError
from metapl.studies.peers import PEERS, RULE, Step

TrainStep = Callable[[PyTree, Batch, Key], tuple[PyTree, dict[str, Tensor]]]
"""The pure step of a method."""

BASE = "first-order"
"""The step whose cost is 1: the paper's."""

ROUTES = ("exact:route=forward", "exact:route=reverse", "exact:route=difference")
"""What is measured by default beside the defaults of every estimator."""

CLASSES = 10
"""Of the random labels."""


class Scene(NamedTuple):
    """What the steps are taken on."""

    model: str
    """Of teacher and student, as `--model` has it."""
    shape: tuple[int, ...]
    """Of one example."""
    batch: int = 16
    """Labelled examples."""
    ratio: int = 7
    """Unlabelled ones for each of them."""
    device: torch.device = torch.device("cpu")

    @property
    def examples(self) -> int:
        """Labelled and unlabelled examples of a step."""
        return self.batch * (1 + self.ratio)


class StepCost(NamedTuple):
    """What one step costs."""

    name: str
    flops: int
    flops_ratio: float
    """To those of the first step, as of all fields named so."""
    seconds: float
    """The median."""
    time_low: float
    """The lower quartile of the ratio of times in one round."""
    time_ratio: float
    """Its median."""
    time_high: float
    """Its upper quartile."""
    peak_memory_bytes: int
    """At most held beyond what was there before the step."""
    examples_per_second: float
    """Labelled and unlabelled ones."""


def choose(given: Sequence[str]) -> dict[str, Estimator]:
    """The estimators to measure by what was typed, the paper's first; all that there are if nothing was.

    Raises:
        InputError: a name or an option that does not exist.
    """
    names = dict.fromkeys([BASE, *(given or [*AVAILABLE, *ROUTES])])
    return {name: notation.build(name, AVAILABLE, "estimator") for name in names}


def steps(scene: Scene, estimators: Mapping[str, Estimator]) -> tuple[dict[str, Step], dict[str, str]]:
    """The steps by name, of estimators and of peers, each with a training of its own; and why others are left out.

    Raises:
        InputError: a network that does not exist or does not take the shape.
    """
    batch, recipe = _batch(scene), Recipe()
    build = partial(models.build, scene.model, scene.shape, CLASSES)
    makers: dict[str, Callable[[], Step]] = {name: partial(running, scene, one) for name, one in estimators.items()}
    makers |= {name: partial(make, build, batch, recipe) for name, make in PEERS.items()}
    found, left_out = {}, {}
    for name, make in makers.items():
        try:
            step = make()
            step()
        except ImportError:
            left_out[name] = "is not installed"
        except (InputError, ValueError) as error:
            if name == BASE:
                raise
            left_out[name] = str(error)
        else:
            found[name] = step
    return found, left_out


def _batch(scene: Scene) -> Batch:
    """Random numbers and labels."""
    x_key, y_key, unlabelled_key = rng.split(rng.key(2), 3)
    x = rng.normal(x_key, (scene.batch, *scene.shape))
    unlabelled = rng.normal(unlabelled_key, (scene.batch * scene.ratio, *scene.shape))
    y = rng.randint(y_key, (scene.batch,), CLASSES)
    return Batch(*(value.to(scene.device) for value in (x, y, unlabelled)))


def running(
    scene: Scene,
    estimator: Estimator,
    change: Callable[[Model], Model] = lambda model: model,
    through: Callable[[TrainStep], TrainStep] = lambda step: step,
) -> Step:
    """A training of its own with an estimator.

    Args:
        scene: what its steps are taken on.
        estimator: of the feedback.
        change: what is made of the network, such as one in another precision.
        through: what is made of the pure step, such as `torch.compile`.

    Raises:
        InputError: a network that does not exist, or that the estimator does not take.
    """
    build = partial(models.build, scene.model, scene.shape, CLASSES)
    trainable = Trainable(change(channels_last(functional.from_module(build))), optim.sgd(**RULE))
    labels, augment = TARGETS[estimator.targets[0]], Augment(identity, identity)
    estimator.accepts(trainable.optimizer)
    method: Method = meta_pseudo_labels(trainable, trainable, estimator, labels, augment, Recipe())
    taken, batch = through(method.step), _batch(scene)
    state, key = tree.to((method.init(rng.key(0)), rng.key(1)), batch.x_labelled.device)

    def step() -> None:
        nonlocal state, key
        key = rng.fold_in(key, 1)
        state, _ = taken(state, batch, key)

    return step


def measure(
    scene: Scene, calls: Mapping[str, Step], rounds: int, *, processor: bool = False, tell: Callable[[str], None]
) -> list[StepCost]:
    """What the steps cost, in the order given; ratios are to the first.

    Args:
        scene: what they are taken on.
        calls: the steps by name.
        rounds: timed steps of each, all taking turns.
        processor: count the processor's seconds in place of the clock's, on a machine that others use too.
        tell: called with what is being done.
    """
    tell("time")
    seconds = cost.interleave(calls, rounds, scene.device, processor=processor)
    first = next(iter(calls))
    found: list[StepCost] = []
    for name, call in calls.items():
        tell(name)
        flops, memory = cost.flops(call), cost.peak_memory(call, scene.device)
        low, middle, high = cost.quartiles([a / b for a, b in zip(seconds[name], seconds[first], strict=True)])
        _, median, _ = cost.quartiles(seconds[name])
        ratio = flops / (found[0].flops if found else flops)
        found.append(StepCost(name, flops, ratio, median, low, middle, high, memory, scene.examples / median))
    return found
