"""A configuration turned into objects: data, split, networks, estimator."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl import models as zoo
from metapl import optim
from metapl.core import rng
from metapl.core.targets import TARGETS
from metapl.core.types import Estimator, Key, Model, Optimizer
from metapl.data import inputs
from metapl.data.augment.presets import VIEWS
from metapl.data.examples import place
from metapl.data.form import Form
from metapl.data.sources import Dataset, find
from metapl.data.split import Split, Wanted, read, split
from metapl.estimators import AVAILABLE
from metapl.methods import reduced
from metapl.methods.feedback_scale import SIZES, Size
from metapl.methods.mpl import Recipe
from metapl.models.calibrator import residual
from metapl.models.mlp import mlp
from metapl.nn import functional
from metapl.nn.microbatch import in_parts
from metapl.optim.schedule import Rate
from metapl.registry import notation
from metapl.registry.errors import InputError, unknown
from metapl.training.config import PAIRED, TrainConfig


class Keys(NamedTuple):
    """One key a purpose, so that runs that differ in one thing share all the others."""

    split: Key
    batches: Key
    supervised: Key
    pseudo_labels: Key
    uda: Key
    mpl: Key
    finetune: Key
    reduced: Key
    fixed: Key


CALIBRATORS = {"residual": residual, "mlp": mlp}
"""What may correct a fixed teacher."""


class Models(NamedTuple):
    """The networks of a configuration, without their weights."""

    student: Model
    teacher: Model
    calibrator: Model
    """With the method "reduced" the teacher is fixed, and this corrects it."""
    reduced: bool

    def of(self, name: str) -> Model:
        """The model that a network of a run belongs to, by the network's name."""
        if name == "teacher" and self.reduced:
            return reduced.composed(self.teacher, self.calibrator)
        return self.teacher if name in ("teacher", "fixed") else self.student


class Experiment(NamedTuple):
    """A configuration turned into objects."""

    config: TrainConfig
    data: Dataset
    split: Split
    models: Models
    estimator: Estimator
    labels: str
    keys: Keys
    varied: Mapping[str, Tensor] = MappingProxyType({})
    """What takes the place of some of the configuration's `VARYING` numbers, in a population: scalar tensors."""

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
        known = {name: self.number(name) for name in Recipe._fields if name not in ("feedback_size", "labelled")}
        labelled = len(self.split.labelled) / len(self.data.form.classes)
        return Recipe(**known, feedback_size=feedback_size(self.config), labelled=labelled)


def pick_device(name: str) -> torch.device:
    """The device by name; auto is CUDA where there is one, and of several the one of this process of torchrun.

    Raises:
        InputError: a device that is not there.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    refused = InputError(f"--device {name} is not available here: choose cpu or auto")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise refused
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise refused from None


def _model(text: str, shape: tuple[int, ...], classes: int) -> Model:
    return functional.from_module(lambda: zoo.build(text, shape, classes))


def networks(config: TrainConfig, form: Form) -> Models:
    """The networks of a configuration for data of a form.

    Raises:
        InputError: a network that does not exist, or does not fit.
    """
    shape, classes = form.shape, len(form.classes)
    student = _in_parts(config, _model(config.model, shape, classes))
    teacher = _in_parts(config, _model(config.teacher_model or config.model, shape, classes))
    calibrator = functional.from_module(
        lambda: notation.build(config.calibrator, CALIBRATORS, "calibrator", (classes,), classes)
    )
    return Models(student, teacher, calibrator, config.method == "reduced")


def _in_parts(config: TrainConfig, model: Model) -> Model:
    """The model as `--microbatch` and `--batch-norm-batch` divide its batches."""
    if not model.coupled:
        return in_parts(model, config.microbatch) if config.microbatch else model
    group = config.batch_norm_batch
    if config.microbatch and not 0 < group <= config.microbatch:
        raise InputError(
            f"--microbatch {config.microbatch}: BatchNorm shares statistics over "
            f"{group or 'the whole batch'}{' examples' if group else ''}: give --batch-norm-batch "
            f"{config.microbatch} too, or a model without it such as convnet:norm=group"
        )
    return in_parts(model, group, recompute=config.microbatch > 0) if group else model


def _data(config: TrainConfig) -> Dataset:
    data = find.load(config.data, config.data_dir)
    if config.augment != "auto":
        data = data._replace(augment=notation.build(config.augment, VIEWS, "augment", data.form))
    return inputs.with_unlabelled(data, config.unlabelled) if config.unlabelled else data


def _split(config: TrainConfig, data: Dataset, key: Key, file: Path | None = None) -> Split:
    if file or config.split:
        return read(file or Path(config.split), data.y)
    wanted = Wanted(config.labels, config.validation, config.balanced, config.labelled_in_unlabelled)
    return split(data.y, data.form.classes, wanted, key)


def prepare(
    config: TrainConfig, split_file: Path | None = None, check: Callable[[Form], object] = lambda _: None
) -> Experiment:
    """Check a configuration by building everything that it names.

    Args:
        config: what to build.
        split_file: a `split.json` to read in place of the configuration's own way to a split.
        check: called with the form of the data before any network is built for it.

    Raises:
        InputError: anything in it that is wrong.
    """
    device = pick_device(config.device)
    data = _data(config)
    check(data.form)
    keys = _keys(config)
    parts = _split(config, data, keys.split, split_file)
    data = data._replace(y=data.y.to(device), y_test=data.y_test.to(device), x=place(data.x, device))
    data = data._replace(x_test=place(data.x_test, device))
    models = networks(config, data.form)
    estimator = notation.build(config.grad, AVAILABLE, "estimator")
    if config.unroll > 1 and not estimator.several:
        raise InputError(f"--unroll {config.unroll}: --grad {config.grad} takes one step at a time: use --grad exact")
    estimator.accepts(optimizer(config, 1.0, models.student))
    feedback_size(config)
    if config.schedule not in optim.SCHEDULES:
        raise unknown("schedule", config.schedule, optim.SCHEDULES)
    return Experiment(config, data, parts, models, estimator, _labels(config, estimator), keys)


def _keys(config: TrainConfig) -> Keys:
    return Keys(*rng.split(rng.key(config.seed), len(Keys._fields)))


def member(like: Experiment, config: TrainConfig) -> Experiment:
    """`prepare(config)` for a configuration that differs in the seed and the `VARYING` numbers alone.

    The data, on its device, and the networks are those of `like`.
    """
    keys = _keys(config)
    return like._replace(config=config, keys=keys, split=_split(config, like.data, keys.split))


def feedback_size(config: TrainConfig) -> Size:
    """The rule for the length of the feedback.

    Raises:
        InputError: one that does not exist.
    """
    return notation.build(config.feedback_size, SIZES, "feedback size")


def _labels(config: TrainConfig, estimator: Estimator) -> str:
    if config.pseudo_labels == "auto":
        return estimator.targets[0]
    if config.pseudo_labels not in TARGETS:
        raise unknown("pseudo labels", config.pseudo_labels, [*TARGETS, "auto"])
    if config.method in PAIRED and config.pseudo_labels not in estimator.targets:
        usable = " or ".join(estimator.targets)
        raise InputError(
            f"--pseudo-labels {config.pseudo_labels} has no feedback with --grad {config.grad}: use {usable}"
        )
    return config.pseudo_labels


def optimizer(config: TrainConfig, lr: Rate, model: Model) -> Optimizer:
    """The update rule of a configuration for a model, with a learning rate; normalisation has no weight decay."""
    rule = notation.build(config.optimizer, optim.OPTIMIZERS, "optimizer", lr)
    if model.scales and rule.rule.options.get("weight_decay"):
        name, given = notation.parse(config.optimizer, optim.OPTIMIZERS, "optimizer")
        bare = optim.OPTIMIZERS[name](lr, **{**given, "weight_decay": 0.0})
        rule = optim.groups(lambda param: "scales" if param in model.scales else "rest", {"rest": rule, "scales": bare})
    return optim.chain(optim.clip_by_global_norm(config.clip), rule) if config.clip else rule
