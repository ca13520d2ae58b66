"""A whole run: baselines, Meta Pseudo Labels, finetuning, and the evaluation of the final weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from metapl import baselines, metrics, optim, train
from metapl.config import TrainConfig
from metapl.data import loader
from metapl.labels import LABELS
from metapl.mpl import Method, Network, Player, meta_pseudo_labels
from metapl.setting import Setting, optimizer, recipe
from metapl.types import Key, Model

Rows = dict[str, dict[str, float]]
"""Metrics by network."""


class Result(NamedTuple):
    """What a run leaves: the networks, and their metrics on the validation part and on the test set."""

    networks: dict[str, Network]
    validation: Rows
    test: Rows


def _player(setting: Setting, model: Model, lr: float, wait: int = 0, pace: int = 1) -> Player:
    """A network and its optimiser, which takes `pace` steps for each one of the configuration."""
    config = setting.config
    device = setting.data.x.device
    schedule = optim.cosine(lr, config.steps * pace, config.warmup * pace, wait * pace)

    def init(key: Key) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        params, buffers = model.init(key)
        return {k: v.to(device) for k, v in params.items()}, {k: v.to(device) for k, v in buffers.items()}

    return Player(model._replace(init=init), optimizer(config, schedule))


def _method(name: str, setting: Setting, networks: dict[str, Network]) -> Method:
    config, numbers, augment = setting.config, recipe(setting.config), setting.data.augment
    if name == "mpl":
        teacher = _player(setting, setting.teacher, config.teacher_lr)
        student = _player(setting, setting.student, config.lr, config.student_wait, config.unroll)
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
    return [config.method]


def run(setting: Setting, report: Callable[[train.Progress], None], every: int = 50) -> Result:
    """Train what the configuration asks for, and evaluate every network at the end, on the final weights."""
    networks: dict[str, Network] = {}
    keys = setting.keys._asdict()
    for name in _phases(setting.config):
        method = _method(name, setting, networks)
        given = batches(setting, setting.config.unroll if name == "mpl" else 1)
        phase = train.Phase(name, method, given, setting.config.steps, keys[name.replace("-", "_")])
        found = method.networks(train.fit(phase, report, every))
        # A baseline is judged, as the student is, by the moving average of its weights.
        networks.update(found if name == "mpl" else {name: found["ema"]})
    if "ema" in networks and setting.config.finetune_steps:
        networks["finetuned"] = _finetune(setting, networks["ema"], report, every)
    return Result(networks, evaluate(setting, networks, "validation"), evaluate(setting, networks, "test"))


def batches(setting: Setting, unroll: int = 1) -> Callable[[int], loader.Batch]:
    """The batches of a setting; with `unroll` unlabelled ones in each."""
    data, parts, config = setting.data, setting.split, setting.config
    labelled = parts.labelled.to(data.x.device)
    unlabelled = parts.unlabelled.to(data.x.device)
    sizes = (config.labelled_batch, config.batch)
    seen = (data.x[labelled], data.y[labelled])
    return loader.batches(seen, data.x[unlabelled], sizes, setting.keys.batches, unroll)


def _finetune(setting: Setting, start: Network, report: Callable[[train.Progress], None], every: int) -> Network:
    config = setting.config
    player = Player(setting.student, optim.sgd(config.finetune_lr, momentum=0.9))
    numbers = recipe(config)._replace(uda_weight=0.0)
    method = baselines.supervised(player, setting.data.augment, numbers, start)
    phase = train.Phase("finetune", method, batches(setting), config.finetune_steps, setting.keys.finetune)
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
