"""A whole run: baselines, Meta Pseudo Labels, finetuning, and the evaluation of the final weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metapl import baselines, metrics, optim, reduced, train, tree
from metapl.config import PAIRED, TrainConfig
from metapl.data import loader
from metapl.data.examples import subset
from metapl.labels import LABELS
from metapl.mpl import Method, Network, Player, meta_pseudo_labels
from metapl.setting import Setting, optimizer, recipe
from metapl.types import Key, Model

Rows = dict[str, dict[str, float]]
"""Metrics by network."""

Report = Callable[[train.Progress], None]
"""Called every `report_every` steps of a phase, and after its last."""

WATCHED = 1000
"""At most so many unlabelled examples are looked at for the quality of their pseudo labels."""


class Result(NamedTuple):
    """What a run leaves: the networks, their metrics, and the counts of right and wrong on the test set."""

    networks: dict[str, Network]
    validation: Rows
    test: Rows
    confusion: dict[str, Tensor]
    """`[classes, classes]` by network, on the test set: row the class, column what was predicted."""


def _player(setting: Setting, model: Model, lr: float, wait: int = 0, pace: int = 1) -> Player:
    """A network and its optimiser, which takes `pace` steps for each one of the configuration."""
    config = setting.config
    schedule = optim.cosine(lr, config.steps * pace, config.warmup * pace, wait * pace)

    def init(key: Key) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return tree.to(model.init(key), setting.device)

    return Player(model._replace(init=init), optimizer(config, schedule, model))


def _method(name: str, setting: Setting, networks: dict[str, Network]) -> Method:
    config, numbers, augment = setting.config, recipe(setting.config), setting.data.augment
    if name in PAIRED:
        return _mpl(name, setting, networks)
    player = _player(setting, setting.models.of(name), config.lr)
    if name == "pseudo-labels":
        fixed = baselines.Fixed(setting.models.student, networks["supervised"], LABELS[setting.labels])
        return baselines.pseudo_labels(player, fixed, augment, numbers)
    numbers = numbers._replace(uda_weight=0.0) if name == "supervised" else numbers
    method = baselines.supervised(player, augment, numbers)
    if name == "fixed":  # by its own name, since "model" and "ema" are networks of the student's kind
        return method._replace(networks=lambda state: {"fixed": method.networks(state)["ema"]})
    return method


def _mpl(name: str, setting: Setting, networks: dict[str, Network]) -> Method:
    config, numbers, augment = setting.config, recipe(setting.config), setting.data.augment
    student = _player(setting, setting.models.student, config.lr, config.student_wait, config.unroll)
    labels = LABELS[setting.labels]
    if name == "mpl":
        teacher = _player(setting, setting.models.teacher, config.teacher_lr)
        return meta_pseudo_labels(teacher, student, setting.estimator, labels, augment, numbers)
    teacher, fixed = _player(setting, setting.models.calibrator, config.teacher_lr), networks["fixed"]
    see = reduced.lookup(reduced.said(setting.models.teacher, fixed, setting.data.x, augment))
    alone = numbers._replace(uda_weight=0.0)  # what a fixed teacher said has no other view to be consistent with
    method = meta_pseudo_labels(teacher, student, setting.estimator, labels, augment, alone, see)
    return method._replace(networks=lambda state: reduced.composing(fixed, method.networks(state)))


def _phases(config: TrainConfig) -> list[str]:
    """The methods to run, in order: what each needs comes before it."""
    if config.method == "pseudo-labels":
        return ["supervised", "pseudo-labels"]
    compared = ["supervised", "pseudo-labels", *(["uda"] if config.uda_weight else [])] if config.baselines else []
    return {"mpl": [*compared, "mpl"], "reduced": [*compared, "fixed", "reduced"]}.get(config.method, [config.method])


def run(setting: Setting, report: Report, tick: train.Tick = train.no_tick) -> Result:
    """Train what the configuration asks for, and evaluate every network at the end, on the final weights."""
    networks: dict[str, Network] = {}
    keys = setting.keys._asdict()
    for name in _phases(setting.config):
        method = _method(name, setting, networks)
        paired = name in PAIRED
        given = batches(setting, setting.config.unroll if paired else 1)
        phase = train.Phase(name, method, given, setting.config.steps, keys[name.replace("-", "_")])
        found = method.networks(train.fit(phase, report, setting.config.report_every, tick))
        # A baseline is judged, as the student is, by the moving average of its weights.
        networks.update(found if paired or name == "fixed" else {name: found["ema"]})
    if "ema" in networks and setting.config.finetune_steps:
        networks["finetuned"] = _finetune(setting, networks["ema"], report, tick)
    logits = {name: predict(setting, name, network, "test") for name, network in networks.items()}
    y = setting.data.y_test
    return Result(
        networks,
        evaluate(setting, networks, "validation"),
        {name: metrics.evaluate(found, y) for name, found in logits.items()},
        {name: metrics.confusion(found, y).cpu() for name, found in logits.items()},
    )


def batches(setting: Setting, unroll: int = 1, labelled: int = 0) -> Callable[[int], loader.Batch]:
    """The batches of a setting; with `unroll` unlabelled ones in each, and another number of `labelled` examples."""
    data, config = setting.data, setting.config
    sizes = (labelled or config.labelled_batch, config.batch)
    at = loader.batches(data.x, data.y, setting.split, sizes, setting.keys.batches, unroll)
    return at if isinstance(data.x, Tensor) else loader.ahead(at)


def _finetune(setting: Setting, start: Network, report: Report, tick: train.Tick) -> Network:
    config = setting.config
    player = Player(setting.models.student, optim.sgd(config.finetune_lr, momentum=0.9))
    numbers = recipe(config)._replace(uda_weight=0.0)
    method = baselines.supervised(player, setting.data.augment, numbers, start)
    given = batches(setting, labelled=config.finetune_batch)
    phase = train.Phase("finetune", method, given, config.finetune_steps, setting.keys.finetune)
    return method.networks(train.fit(phase, report, setting.config.report_every, tick))["model"]


def predict(setting: Setting, name: str, network: Network, part: str) -> Tensor:
    """Logits `[examples, classes]` of a network on the "validation" part or the "test" set."""
    data = setting.data
    x = data.x_test if part == "test" else subset(data.x, setting.split.validation)
    return metrics.predict(setting.models.of(name), *network, x, data.augment.prepare)


def evaluate(setting: Setting, networks: dict[str, Network], part: str) -> Rows:
    """Metrics of every network on the "validation" part or the "test" set; none where the part is empty."""
    data = setting.data
    y = data.y_test if part == "test" else data.y[setting.split.validation.to(data.y.device)]
    if not len(y):
        return {}
    return {name: metrics.evaluate(predict(setting, name, network, part), y) for name, network in networks.items()}


def pseudo_label_quality(setting: Setting, teacher: Network) -> dict[str, float]:
    """How right and how sure the teacher is on unlabelled examples, evenly spaced; see `metrics.pseudo_labels`.

    It uses classes that the training does not see, where the data has them, and nothing but the log does with it.
    """
    data, unlabelled = setting.data, setting.split.unlabelled
    some = unlabelled[torch.linspace(0, len(unlabelled) - 1, min(WATCHED, len(unlabelled))).long()]
    logits = metrics.predict(setting.models.of("teacher"), *teacher, subset(data.x, some), data.augment.prepare)
    return metrics.pseudo_labels(logits, data.y[some.to(data.y.device)], setting.config.uda_threshold)
