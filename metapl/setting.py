"""A configuration turned into objects: data, split, networks, estimator."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from metapl import functional, optim, rng, spec
from metapl.config import TrainConfig
from metapl.data.sources import SOURCES, Dataset
from metapl.data.split import Split, split
from metapl.errors import InputError, unknown
from metapl.estimators import AVAILABLE
from metapl.labels import LABELS
from metapl.models import MODELS
from metapl.mpl import Recipe
from metapl.optim.schedule import Rate
from metapl.types import Estimator, Key, Model, Optimizer


class Keys(NamedTuple):
    """One key a purpose, so that runs that differ in one thing share all the others."""

    split: Key
    batches: Key
    supervised: Key
    pseudo_labels: Key
    uda: Key
    mpl: Key
    finetune: Key


class Setting(NamedTuple):
    """A configuration turned into objects."""

    config: TrainConfig
    data: Dataset
    split: Split
    student: Model
    teacher: Model
    estimator: Estimator
    labels: str
    keys: Keys


def pick_device(name: str) -> torch.device:
    """The device by name; auto is CUDA where there is one.

    Raises:
        InputError: a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    refused = InputError(f"--device {name} is not available here: choose cpu or auto")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise refused
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise refused from None


def _model(text: str, data: Dataset) -> Model:
    shape = tuple(data.x.shape[1:])

    def build() -> nn.Module:
        return spec.build(text, MODELS, "model", shape, data.classes)

    return functional.from_module(build)


def prepare(config: TrainConfig, existing: Split | None = None) -> Setting:
    """Check a configuration by building everything that it names.

    Args:
        config: the configuration.
        existing: a saved split to use in place of a fresh one.

    Raises:
        InputError: anything in it that is wrong.
    """
    device = pick_device(config.device)
    data: Dataset = spec.build(config.data, SOURCES, "data")
    keys = Keys(*rng.split(rng.key(config.seed), len(Keys._fields)))
    parts = existing or split(
        data.y,
        data.classes,
        labels=config.labels,
        validation=config.validation,
        key=keys.split,
        labelled_in_unlabelled=config.labelled_in_unlabelled,
    )
    data = data._replace(**{name: getattr(data, name).to(device) for name in ("x", "y", "x_test", "y_test")})
    student = _model(config.model, data)
    teacher = _model(config.teacher_model or config.model, data)
    estimator = spec.build(config.grad, AVAILABLE, "estimator")
    if config.unroll > 1 and not estimator.several:
        raise InputError(f"--unroll {config.unroll}: --grad {config.grad} takes one step at a time: use --grad exact")
    estimator.accepts(optimizer(config, 1.0))
    return Setting(config, data, parts, student, teacher, estimator, _labels(config, estimator), keys)


def _labels(config: TrainConfig, estimator: Estimator) -> str:
    if config.pseudo_labels == "auto":
        return estimator.labels[0]
    if config.pseudo_labels not in LABELS:
        raise unknown("pseudo labels", config.pseudo_labels, [*LABELS, "auto"])
    if config.method == "mpl" and config.pseudo_labels not in estimator.labels:
        usable = " or ".join(estimator.labels)
        raise InputError(
            f"--pseudo-labels {config.pseudo_labels} has no feedback with --grad {config.grad}: use {usable}"
        )
    return config.pseudo_labels


def optimizer(config: TrainConfig, lr: Rate) -> Optimizer:
    """The update rule of a configuration with a learning rate."""
    rule = spec.build(config.optimizer, optim.OPTIMIZERS, "optimizer", lr)
    return optim.chain(optim.clip_by_global_norm(config.clip), rule) if config.clip else rule


def recipe(config: TrainConfig) -> Recipe:
    """The part of a configuration that the losses need."""
    return Recipe(**{name: getattr(config, name) for name in Recipe._fields})
