"""A whole run: baselines, Meta Pseudo Labels, finetuning, and the evaluation of the final weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl import optim
from metapl.core import tree
from metapl.core.targets import LABELS
from metapl.core.types import Key, Model
from metapl.data import loader
from metapl.data.examples import subset
from metapl.evaluation import metrics
from metapl.methods import baselines, reduced
from metapl.methods.mpl import Method, Network, Player, Recipe, meta_pseudo_labels
from metapl.training import loop
from metapl.training.config import PAIRED, TrainConfig
from metapl.training.setup import Setting, optimizer

Rows = dict[str, dict[str, float]]
"""Metrics by network."""

Networks = dict[str, Network]
"""Networks by name."""

Report = Callable[[loop.Progress], None]
"""Called every `report_every` steps of a phase, and after its last."""

WATCHED = 1000
"""At most so many unlabelled examples are looked at for the quality of their pseudo labels."""


class Result(NamedTuple):
    """What a run leaves: the networks, their metrics, and the counts of right and wrong on the test set."""

    networks: Networks
    validation: Rows
    test: Rows
    confusion: dict[str, Tensor]
    """`[classes, classes]` by network, on the test set: row the class, column what was predicted."""


class Part(NamedTuple):
    """One phase of a run, the same for every member of a population."""

    name: str
    method: Callable[[Setting, Networks], Method]
    """`method(setting, networks)`: what is trained, given the networks of the phases before."""
    steps: int
    keep: Callable[[Networks], Networks]
    """`keep(networks)`: what is left of it, by the names of the result."""
    unroll: int = 1
    """Unlabelled batches a step."""
    labelled: int = 0
    """Labelled examples a step; 0 for as many as the configuration says."""

    def phase(self, setting: Setting, networks: Networks) -> loop.Phase:
        """The phase of one run."""
        method = self.method(setting, networks)
        given = batches(setting, self.unroll, self.sizes(setting.config, method))
        return loop.Phase(self.name, method, given, self.steps, self.key(setting))

    def sizes(self, config: TrainConfig, method: Method) -> tuple[int, int]:
        """Labelled and unlabelled examples a batch; none, so that none are read, of those that `method` never sees."""
        sizes = {"x_labelled": self.labelled or config.labelled_batch, "x_unlabelled": config.batch}
        labelled, unlabelled = (size if field in method.sees else 0 for field, size in sizes.items())
        return labelled, unlabelled

    def key(self, setting: Setting) -> Key:
        """The phase's own key."""
        return getattr(setting.keys, self.name.replace("-", "_"))


def plan(config: TrainConfig) -> list[Part]:
    """The phases of a run, in order: what each needs comes before it."""
    parts = [_part(name, config) for name in _methods(config)]
    if config.method in PAIRED and config.finetune_steps:
        labelled = config.finetune_batch
        kept = _named("finetuned", "model")
        parts.append(Part("finetune", _finetune, config.finetune_steps, kept, labelled=labelled))
    return parts


def _methods(config: TrainConfig) -> list[str]:
    if config.method == "pseudo-labels":
        return ["supervised", "pseudo-labels"]
    compared = ["supervised", "pseudo-labels", *(["uda"] if config.uda_weight else [])] if config.baselines else []
    return {"mpl": [*compared, "mpl"], "reduced": [*compared, "fixed", "reduced"]}.get(config.method, [config.method])


def _part(name: str, config: TrainConfig) -> Part:
    # A baseline is judged, as the student is, by the moving average of its weights.
    keep = _as_they_are if name in (*PAIRED, "fixed") else _named(name, "ema")
    return Part(name, METHODS[name], config.steps, keep, unroll=config.unroll if name in PAIRED else 1)


def _as_they_are(networks: Networks) -> Networks:
    return networks


def _named(name: str, of: str) -> Callable[[Networks], Networks]:
    return lambda networks: {name: networks[of]}


def _player(setting: Setting, model: Model, rate: str, wait: int = 0, pace: int = 1) -> Player:
    """A network and its optimiser, which takes `pace` steps for each one of the configuration."""
    config = setting.config
    course = optim.SCHEDULES[config.schedule]
    schedule = course(setting.number(rate), config.steps * pace, config.warmup * pace, wait * pace)

    def init(key: Key) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return tree.to(model.init(key), setting.device)

    return Player(model._replace(init=init), optimizer(config, schedule, model))


def _alone(setting: Setting, model: Model, recipe: Recipe) -> Method:
    return baselines.supervised(_player(setting, model, "lr"), setting.data.augment, recipe)


def _without_uda(setting: Setting) -> Recipe:
    return setting.recipe._replace(uda_weight=0.0)


def _uda(setting: Setting, networks: Networks) -> Method:  # noqa: ARG001 - it needs none
    return _alone(setting, setting.models.student, setting.recipe)


def _supervised(setting: Setting, networks: Networks) -> Method:  # noqa: ARG001 - it needs none
    return _alone(setting, setting.models.student, _without_uda(setting))


def _fixed(setting: Setting, networks: Networks) -> Method:  # noqa: ARG001 - it needs none
    method = _alone(setting, setting.models.teacher, setting.recipe)
    # By its own name, since "model" and "ema" are networks of the student's kind.
    return method._replace(networks=lambda state: {"fixed": method.networks(state)["ema"]})


def _pseudo_labels(setting: Setting, networks: Networks) -> Method:
    fixed = baselines.Fixed(setting.models.student, networks["supervised"], LABELS[setting.labels])
    player = _player(setting, setting.models.student, "lr")
    return baselines.pseudo_labels(player, fixed, setting.data.augment, setting.recipe)


def _student(setting: Setting) -> Player:
    config = setting.config
    return _player(setting, setting.models.student, "lr", config.student_wait, config.unroll)


def _mpl(setting: Setting, networks: Networks) -> Method:  # noqa: ARG001 - it needs none
    teacher = _player(setting, setting.models.teacher, "teacher_lr")
    labels, augment = LABELS[setting.labels], setting.data.augment
    return meta_pseudo_labels(teacher, _student(setting), setting.estimator, labels, augment, setting.recipe)


def _reduced(setting: Setting, networks: Networks) -> Method:
    teacher, fixed = _player(setting, setting.models.calibrator, "teacher_lr"), networks["fixed"]
    labels, augment = LABELS[setting.labels], setting.data.augment
    see = reduced.lookup(reduced.said(setting.models.teacher, fixed, setting.data.x, augment))
    alone = _without_uda(setting)  # what a fixed teacher said has no other view to be consistent with
    method = meta_pseudo_labels(teacher, _student(setting), setting.estimator, labels, augment, alone, see)
    return method._replace(networks=lambda state: reduced.composing(fixed, method.networks(state)))


def _finetune(setting: Setting, networks: Networks) -> Method:
    player = Player(setting.models.student, optim.sgd(setting.number("finetune_lr"), momentum=0.9))
    return baselines.supervised(player, setting.data.augment, _without_uda(setting), networks["ema"])


METHODS: dict[str, Callable[[Setting, Networks], Method]] = {
    "supervised": _supervised,
    "pseudo-labels": _pseudo_labels,
    "uda": _uda,
    "fixed": _fixed,
    "mpl": _mpl,
    "reduced": _reduced,
}


def run(setting: Setting, report: Report, tick: loop.Tick = loop.no_tick, strict: bool = True) -> Result:
    """Train what the configuration asks for, and evaluate every network at the end, on the final weights.

    Raises:
        InputError: a loss that is no longer finite, where `strict`.
    """
    networks: Networks = {}
    for part in plan(setting.config):
        phase = part.phase(setting, networks)
        state = loop.fit(phase, report, setting.config.report_every, tick, strict)
        networks.update(part.keep(phase.method.networks(state)))
    return judge(setting, networks)


def judge(setting: Setting, networks: Networks) -> Result:
    """The result that trained networks are."""
    logits = {name: predict(setting, name, network, "test") for name, network in networks.items()}
    y = setting.data.y_test
    return Result(
        networks,
        evaluate(setting, networks, "validation"),
        {name: metrics.evaluate(found, y) for name, found in logits.items()},
        {name: metrics.confusion(found, y).cpu() for name, found in logits.items()},
    )


def batches(setting: Setting, unroll: int = 1, sizes: tuple[int, int] | None = None) -> Callable[[int], loader.Batch]:
    """The batches of a setting, with `unroll` unlabelled ones in each; of other `sizes`, labelled and unlabelled."""
    data = setting.data
    wanted = sizes or (setting.config.labelled_batch, setting.config.batch)
    at = loader.batches(data.x, data.y, setting.split, wanted, setting.keys.batches, unroll)
    return at if isinstance(data.x, Tensor) else loader.ahead(at)


def predict(setting: Setting, name: str, network: Network, part: str) -> Tensor:
    """Logits `[examples, classes]` of a network on the "validation" part or the "test" set."""
    data = setting.data
    x = data.x_test if part == "test" else subset(data.x, setting.split.validation)
    return metrics.predict(setting.models.of(name), *network, x, data.augment.prepare)


def evaluate(setting: Setting, networks: Networks, part: str) -> Rows:
    """Metrics of every network on the "validation" part or the "test" set; none where the part is empty."""
    data = setting.data
    y = data.y_test if part == "test" else data.y[setting.split.validation.to(data.y.device)]
    if not len(y):
        return {}
    return {name: metrics.evaluate(predict(setting, name, network, part), y) for name, network in networks.items()}


def look(setting: Setting, progress: loop.Progress) -> dict[str, Any]:
    """A run on its way, as a line of its log: means of the metrics, the validation part, the pseudo labels."""
    line = {
        "phase": progress.phase,
        "step": progress.step,
        "metrics": progress.metrics,
        "validation": evaluate(setting, progress.networks, "validation"),
    }
    if "teacher" in progress.networks:
        line["pseudo_labels"] = pseudo_label_quality(setting, progress.networks["teacher"])
    return line


def pseudo_label_quality(setting: Setting, teacher: Network) -> dict[str, float]:
    """How right and how sure the teacher is on unlabelled examples, evenly spaced; see `metrics.pseudo_labels`.

    It uses classes that the training does not see, where the data has them, and nothing but the log does with it.
    """
    data, unlabelled = setting.data, setting.split.unlabelled
    some = unlabelled[torch.linspace(0, len(unlabelled) - 1, min(WATCHED, len(unlabelled))).long()]
    logits = metrics.predict(setting.models.of("teacher"), *teacher, subset(data.x, some), data.augment.prepare)
    return metrics.pseudo_labels(logits, data.y[some.to(data.y.device)], setting.config.uda_threshold)
