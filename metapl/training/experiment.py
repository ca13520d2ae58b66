"""A configuration turned into objects, each once: data, split, networks, estimator, optimisers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl import methods, optim
from metapl.core import tree
from metapl.core.collectives import ALONE, Processes
from metapl.core.targets import TARGETS
from metapl.core.types import Buffers, Estimator, Key, Model, Params, Variables
from metapl.data.examples import place
from metapl.data.form import Form
from metapl.data.sources import Dataset
from metapl.data.split import Split
from metapl.estimators import AVAILABLE
from metapl.methods.base import Recipe, Trainable
from metapl.methods.seen import Fitted
from metapl.methods.spec import Given, Models
from metapl.optim.schedule import Rate
from metapl.registry import notation
from metapl.registry.errors import InputError, unknown
from metapl.training import compiling, examples, rules, start
from metapl.training.architectures import architectures
from metapl.training.automatic import settle
from metapl.training.class_means import class_means
from metapl.training.config import TrainConfig
from metapl.training.keys import Keys, keys_of
from metapl.training.optimizers import Rule, rule
from metapl.training.rules import Rules

GUIDE = "answers of the guide"
"""Their name among what varies: log-probabilities `[examples, classes]`, known once the guide is fitted."""

SHARES = "shares of the classes in the answers of the guide"
"""Their name among what varies: the mean of its probabilities over the pool, `[classes]`."""

MEANS = "means of the labelled examples of each class"
"""Their name among what varies in a population, for networks that start from them."""

COUNTS = "labelled examples of each class"
"""Their name among what varies in a population; no field of the configuration is called so."""


class Experiment(NamedTuple):
    """A configuration turned into objects."""

    config: TrainConfig
    data: Dataset
    split: Split
    models: Models
    estimator: Estimator
    labels: str
    """The kind of the pseudo labels."""
    optimizer: Rule
    finetune_optimizer: Rule
    schedule: Callable[..., Rate]
    rules: Rules
    keys: Keys
    begun: Callable[[], Mapping[str, Variables]] = dict
    """`begun()`: what networks start from, by the field of `Models`, see `metapl.training.start.weights`; read when it
    is asked for, since a run that is over needs it no more."""
    varied: Mapping[str, Tensor] = MappingProxyType({})
    """What takes the place of some of the configuration's `VARYING` numbers, in a population: scalar tensors."""
    processes: Processes = ALONE
    """Who trains it together."""
    fitted: Mapping[str, Fitted] = MappingProxyType({})
    """What phases that are fitted at once have left already, by their names."""

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return self.data.y.device

    def number(self, name: str) -> Any:
        """One of the configuration's numbers, which may be among the `varied`."""
        return self.varied[name] if name in self.varied else getattr(self.config, name)

    @property
    def recipe(self) -> Recipe:
        """The part of the configuration that the losses need."""
        labelled = len(self.split.labelled) / len(self.data.form.classes)
        known = rules.numbers(self.number)._replace(labelled=labelled, guide=self.varied.get(GUIDE))
        counts = self.varied.get(COUNTS, self.counts)
        return self.rules.fill(known, counts, len(self.data.x), len(self.split.unlabelled), self.varied.get(SHARES))

    @property
    def counts(self) -> Tensor:
        """Labelled examples of each class, without the validation part, `[classes]`, int64."""
        y = self.data.y
        return torch.bincount(y[self.split.labelled.to(y.device)], minlength=len(self.data.form.classes))

    @property
    def means(self) -> Tensor:
        """Mean of the labelled examples of each class; see `class_means`."""
        return self.varied[MEANS] if MEANS in self.varied else class_means(self.data, self.split)

    @property
    def given(self) -> Given:
        """What methods are built from."""
        return Given(
            self.models,
            self.data.augment,
            self.data.x,
            self.recipe,
            self.estimator,
            TARGETS[self.labels],
            self.number,
            self.trainable,
            self.finetuning,
        )

    def trainable(self, model: Model, rate: str, *, wait: int = 0, pace: int = 1) -> Trainable:
        """A model with the optimiser, which takes `pace` steps for each step of the configuration; see `Given`."""
        config = self.config
        rates = self.schedule(self.number(rate), config.steps * pace, config.warmup * pace, wait * pace)

        def init(key: Key) -> tuple[Params, Buffers]:
            for field, begun in self.begun().items():
                if model is getattr(self.models, field):
                    return tree.to((begun.params, begun.buffers), self.device)
            params, buffers = tree.to(model.init(key), self.device)
            start = model.start(self.means) if model.start else {}
            return {name: start.get(name, value).to(value) for name, value in params.items()}, buffers

        return Trainable(model._replace(init=init), self.optimizer(rates, model))

    def finetuning(self, model: Model) -> Trainable:
        """A model with the optimiser of finetuning, at a constant learning rate."""
        return Trainable(model, self.finetune_optimizer(self.number("finetune_lr"), model))


def pick_device(name: str) -> torch.device:
    """The device by name; auto is CUDA where there is one, and of several the one of this process of torchrun.

    Raises:
        InputError: a device that is not there.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    refused = InputError(f"device = {name} is not available here: choose cpu or auto", "device")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise refused
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise refused from None


def prepare(
    config: TrainConfig,
    split_file: Path | None = None,
    check: Callable[[Form], object] = lambda _: None,
    processes: Processes = ALONE,
) -> Experiment:
    """Check a configuration by building everything that it names.

    Args:
        config: what to build.
        split_file: a `split.json` to read in place of the configuration's own way to a split.
        check: called with the form of the data before any network is built for it.
        processes: who trains it together.

    Raises:
        InputError: anything in it that is wrong.
    """
    device = pick_device(config.device)
    data = examples.load(config, device)
    check(data.form)
    parts = examples.divide(config, data, keys_of(config.seed).split, split_file)
    data = data._replace(y=data.y.to(device), y_test=data.y_test.to(device), x=place(data.x, device))
    data = data._replace(x_test=place(data.x_test, device))
    return assemble(config, data, parts, processes)


def assemble(config: TrainConfig, data: Dataset, parts: Split, processes: Processes = ALONE) -> Experiment:
    """Everything that a configuration names, for data that is there and split already.

    Raises:
        InputError: anything in it that is wrong.
    """
    config = settle(config, data.form)
    compiling.require(config, data.y.device, processes)
    models = architectures(config, data.form, processes)
    method = methods.find(config.method)
    if missing := method.lacks(config):
        raise InputError(
            f"method = {config.method} with {missing} = 0 is {methods.find(method.otherwise).title}: "
            "give it a number above 0",
            *("method", missing),
        )
    estimator = notation.build(config.grad, AVAILABLE, "estimator")
    if config.unroll > 1 and not estimator.several:
        raise InputError(
            f"unroll = {config.unroll}: grad = {config.grad} takes one step at a time: use grad = exact",
            "unroll",
            "grad",
        )
    if config.schedule not in optim.SCHEDULES:
        raise unknown("schedule", config.schedule, optim.SCHEDULES)
    optimizer, finetune_optimizer = rule(config.optimizer, config.clip), rule(config.finetune_optimizer)
    estimator.accepts(optimizer(config.lr, models.student))
    return Experiment(
        config,
        data,
        parts,
        models,
        estimator,
        _labels(config, estimator),
        optimizer,
        finetune_optimizer,
        optim.SCHEDULES[config.schedule],
        rules.read(config, data.form.classes, data.y.device),
        keys_of(config.seed),
        cache(partial(start.weights, config, data.form)),
        processes=processes,
    )


def member(like: Experiment, config: TrainConfig) -> Experiment:
    """`prepare(config)` for a configuration that differs in the seed and the `VARYING` numbers alone.

    The data, on its device, and the networks are those of `like`.
    """
    config, keys = settle(config, like.data.form), keys_of(config.seed)
    return like._replace(config=config, keys=keys, split=examples.divide(config, like.data, keys.split))


def _labels(config: TrainConfig, estimator: Estimator) -> str:
    if config.pseudo_labels == "auto":
        return estimator.targets[0]
    if config.pseudo_labels not in TARGETS:
        raise unknown("pseudo labels", config.pseudo_labels, [*TARGETS, "auto"])
    if methods.find(config.method).paired and config.pseudo_labels not in estimator.targets:
        usable = " or ".join(estimator.targets)
        raise InputError(
            f"pseudo_labels = {config.pseudo_labels} has no feedback with grad = {config.grad}: use {usable}",
            *("pseudo_labels", "grad"),
        )
    return config.pseudo_labels
