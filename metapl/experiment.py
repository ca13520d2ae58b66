"""A whole run: data, baselines, Meta Pseudo Labels, finetuning, test, and the files it leaves."""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import metapl
from metapl import baselines, checkpoint, functional, metrics, optim, rng, spec, train
from metapl.config import TrainConfig, dump, resolve
from metapl.data import loader
from metapl.data.sources import SOURCES, Dataset
from metapl.data.split import Split, split
from metapl.errors import InputError, unknown
from metapl.estimators import ESTIMATORS
from metapl.labels import LABELS
from metapl.models import MODELS
from metapl.mpl import Method, Network, Player, Recipe, meta_pseudo_labels
from metapl.optim.schedule import Schedule
from metapl.types import Estimator, Key, Model, Optimizer

Rows = dict[str, dict[str, float]]
"""Metrics by network."""


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


class Result(NamedTuple):
    """What a run leaves: the networks, and their metrics on the validation part and on the test set."""

    networks: dict[str, Network]
    validation: Rows
    test: Rows


def pick_device(name: str) -> torch.device:
    """The device by name; auto is CUDA where there is one.

    Raises:
        InputError: a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise InputError(f"--device {name} is not available here: choose cpu or auto") from None


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
    data: Dataset = spec.build(config.data, SOURCES, "data", *())
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
    estimator = spec.build(config.grad, ESTIMATORS, "estimator")
    optimizer(config, 1.0)
    return Setting(config, data, parts, student, teacher, estimator, _labels(config, estimator), keys)


def _labels(config: TrainConfig, estimator: Estimator) -> str:
    if config.pseudo_labels == "auto":
        return estimator.labels[0]
    if config.pseudo_labels not in LABELS:
        raise unknown("pseudo labels", config.pseudo_labels, [*LABELS, "auto"])
    if config.method == "mpl" and config.pseudo_labels not in estimator.labels:
        usable = " or ".join(estimator.labels)
        raise InputError(f"--pseudo-labels {config.pseudo_labels} has no feedback with --grad {config.grad}: use {usable}")
    return config.pseudo_labels


def optimizer(config: TrainConfig, lr: float | Schedule) -> Optimizer:
    """The update rule of a configuration with a learning rate."""
    rule = spec.build(config.optimizer, optim.OPTIMIZERS, "optimizer", lr)
    return optim.chain(optim.clip_by_global_norm(config.clip), rule) if config.clip else rule


def recipe(config: TrainConfig) -> Recipe:
    """The part of a configuration that the losses need."""
    return Recipe(**{name: getattr(config, name) for name in Recipe._fields})


def _player(setting: Setting, model: Model, lr: float, wait: int = 0) -> Player:
    config = setting.config
    device = setting.data.x.device
    schedule = optim.cosine(lr, config.steps, config.warmup, wait)

    def init(key: Key) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        params, buffers = model.init(key)
        return {k: v.to(device) for k, v in params.items()}, {k: v.to(device) for k, v in buffers.items()}

    return Player(model._replace(init=init), optimizer(config, schedule))


def _method(name: str, setting: Setting, networks: dict[str, Network]) -> Method:
    config, numbers, augment = setting.config, recipe(setting.config), setting.data.augment
    if name == "mpl":
        teacher = _player(setting, setting.teacher, config.teacher_lr)
        student = _player(setting, setting.student, config.lr, config.student_wait)
        return meta_pseudo_labels(teacher, student, setting.estimator, LABELS[setting.labels], augment, numbers)
    player = _player(setting, setting.student, config.lr)
    if name == "pseudo-labels":
        fixed = baselines.Fixed(setting.student, networks["supervised"], LABELS[setting.labels])
        return baselines.pseudo_labels(player, fixed, augment, numbers)
    return baselines.supervised(player, augment, numbers if name == "uda" else numbers._replace(uda_weight=0.0))


def _phases(config: TrainConfig) -> list[str]:
    """The methods to run, in order: what each needs comes before it."""
    if config.method == "pseudo-labels":
        return ["supervised", "pseudo-labels"]
    if config.method == "mpl" and config.baselines:
        return ["supervised", "pseudo-labels", *(["uda"] if config.uda_weight else []), "mpl"]
    if config.method == "uda" and not config.uda_weight:
        raise InputError("--method uda with --uda-weight 0 is supervised learning: give a weight, or --method supervised")
    return [config.method]


def run(setting: Setting, report: Callable[[train.Progress], None], every: int = 50) -> Result:
    """Train what the configuration asks for, and evaluate every network at the end, on the final weights."""
    networks: dict[str, Network] = {}
    keys = setting.keys._asdict()
    batches = _batches(setting)
    for name in _phases(setting.config):
        method = _method(name, setting, networks)
        phase = train.Phase(name, method, batches, setting.config.steps, keys[name.replace("-", "_")])
        found = method.networks(train.fit(phase, report, every))
        # A baseline is judged, as the student is, by the moving average of its weights.
        networks.update(found if name == "mpl" else {name: found["ema"]})
    if "ema" in networks and setting.config.finetune_steps:
        networks["finetuned"] = _finetune(setting, networks["ema"], report, every)
    return Result(networks, evaluate(setting, networks, "validation"), evaluate(setting, networks, "test"))


def _batches(setting: Setting) -> Callable[[int], loader.Batch]:
    data, parts, config = setting.data, setting.split, setting.config
    labelled = parts.labelled.to(data.x.device)
    unlabelled = parts.unlabelled.to(data.x.device)
    sizes = (config.labelled_batch, config.batch)
    return loader.batches((data.x[labelled], data.y[labelled]), data.x[unlabelled], sizes, setting.keys.batches)


def _finetune(
    setting: Setting, start: Network, report: Callable[[train.Progress], None], every: int
) -> Network:
    config = setting.config
    player = Player(setting.student, optim.sgd(config.finetune_lr, momentum=0.9))
    numbers = recipe(config)._replace(uda_weight=0.0)
    method = baselines.supervised(player, setting.data.augment, numbers, start)
    phase = train.Phase("finetune", method, _batches(setting), config.finetune_steps, setting.keys.finetune)
    return method.networks(train.fit(phase, report, every))["model"]


def evaluate(setting: Setting, networks: dict[str, Network], part: str) -> Rows:
    """Metrics of every network on the "validation" part or the "test" set; none where the part is empty."""
    data = setting.data
    held_out = setting.split.validation.to(data.x.device)
    x, y = (data.x_test, data.y_test) if part == "test" else (data.x[held_out], data.y[held_out])
    if not len(y):
        return {}
    return {
        name: metrics.evaluate(setting.teacher if name == "teacher" else setting.student, *network, x, y)
        for name, network in networks.items()
    }


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    return {
        "metapl": metapl.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kibibytes elsewhere


def save_start(out: Path, setting: Setting) -> None:
    """Write what is known before training: configuration, environment and split."""
    checkpoint.write_text(out / "config.toml", dump(setting.config))
    checkpoint.write_json(out / "environment.json", environment())
    checkpoint.write_json(out / "split.json", {name: part.tolist() for name, part in setting.split._asdict().items()})


def save_end(out: Path, setting: Setting, result: Result, started: float) -> dict[str, Any]:
    """Write the networks and `summary.json`, and return the summary. `started` is a `time.perf_counter()`."""
    checkpoint.save_networks(out / checkpoint.CHECKPOINT, result.networks)
    summary = {
        "test": result.test,
        "validation": result.validation,
        "config": asdict(setting.config),
        "pseudo_labels": setting.labels,
        "seed": setting.config.seed,
        "steps": setting.config.steps,
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": _peak_memory(setting.data.x.device),
    }
    checkpoint.write_json(out / "summary.json", summary)
    return summary


def load(path: Path, device: str = "auto") -> tuple[Setting, dict[str, Network]]:
    """A finished run's setting and networks.

    Raises:
        InputError: not a run, or one that is incomplete or damaged.
    """
    if not (path / "config.toml").is_file():
        raise InputError(f"{path} is not a run: name a folder that `metapl train` wrote")
    config = resolve({"device": device}, path / "config.toml")
    try:
        indices = json.loads((path / "split.json").read_text())
        existing = Split(**{name: torch.tensor(indices[name], dtype=torch.int64) for name in Split._fields})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / 'split.json'} cannot be read ({error!r}): is the run complete?") from None
    setting = prepare(config, existing)
    networks = checkpoint.load_networks(path / checkpoint.CHECKPOINT)
    place = setting.data.x.device
    moved = {
        name: Network(*({k: v.to(place) for k, v in part.items()} for part in network))
        for name, network in networks.items()
    }
    return setting, moved
