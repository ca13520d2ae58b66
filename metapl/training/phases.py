"""A whole run: baselines, Meta Pseudo Labels, finetuning, and the evaluation of the final weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl import optim
from metapl.core import tree
from metapl.core.targets import TARGETS
from metapl.core.types import Key, Model, Variables
from metapl.data import loader
from metapl.data.examples import subset
from metapl.evaluation import metrics
from metapl.methods import baselines, reduced
from metapl.methods.mpl import Method, Recipe, Trainable, meta_pseudo_labels
from metapl.training import loop
from metapl.training.config import PAIRED, TrainConfig
from metapl.training.experiment import Experiment, optimizer

Rows = dict[str, dict[str, float]]
"""Metrics by network."""

Networks = dict[str, Variables]
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
    method: Callable[[Experiment, Networks], Method]
    """`method(setting, networks)`: what is trained, given the networks of the phases before."""
    steps: int
    keep: Callable[[Networks], Networks]
    """`keep(networks)`: what is left of it, by the names of the result."""
    unroll: int = 1
    """Unlabelled batches a step."""
    labelled: int = 0
    """Labelled examples a step; 0 for as many as the configuration says."""

    def phase(self, experiment: Experiment, networks: Networks) -> loop.Phase:
        """The phase of one run."""
        method = self.method(experiment, networks)
        given = batches(experiment, self.unroll, self.sizes(experiment.config, method))
        return loop.Phase(self.name, method, given, self.steps, self.key(experiment))

    def sizes(self, config: TrainConfig, method: Method) -> tuple[int, int]:
        """Labelled and unlabelled examples a batch; none, so that none are read, of those that `method` never sees."""
        sizes = {"x_labelled": self.labelled or config.labelled_batch, "x_unlabelled": config.batch}
        labelled, unlabelled = (size if field in method.sees else 0 for field, size in sizes.items())
        return labelled, unlabelled

    def key(self, experiment: Experiment) -> Key:
        """The phase's own key."""
        return getattr(experiment.keys, self.name.replace("-", "_"))


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


def _trainable(experiment: Experiment, model: Model, rate: str, wait: int = 0, pace: int = 1) -> Trainable:
    """A network and its optimiser, which takes `pace` steps for each one of the configuration."""
    config = experiment.config
    course = optim.SCHEDULES[config.schedule]
    schedule = course(experiment.number(rate), config.steps * pace, config.warmup * pace, wait * pace)

    def init(key: Key) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return tree.to(model.init(key), experiment.device)

    return Trainable(model._replace(init=init), optimizer(config, schedule, model))


def _alone(experiment: Experiment, model: Model, recipe: Recipe) -> Method:
    return baselines.supervised(_trainable(experiment, model, "lr"), experiment.data.augment, recipe)


def _without_uda(experiment: Experiment) -> Recipe:
    return experiment.recipe._replace(uda_weight=0.0)


def _uda(experiment: Experiment, networks: Networks) -> Method:  # noqa: ARG001 - it needs none
    return _alone(experiment, experiment.models.student, experiment.recipe)


def _supervised(experiment: Experiment, networks: Networks) -> Method:  # noqa: ARG001 - it needs none
    return _alone(experiment, experiment.models.student, _without_uda(experiment))


def _fixed(experiment: Experiment, networks: Networks) -> Method:  # noqa: ARG001 - it needs none
    method = _alone(experiment, experiment.models.teacher, experiment.recipe)
    # By its own name, since "model" and "ema" are networks of the student's kind.
    return method._replace(networks=lambda state: {"fixed": method.networks(state)["ema"]})


def _pseudo_labels(experiment: Experiment, networks: Networks) -> Method:
    fixed = baselines.Fixed(experiment.models.student, networks["supervised"], TARGETS[experiment.labels])
    trainable = _trainable(experiment, experiment.models.student, "lr")
    return baselines.pseudo_labels(trainable, fixed, experiment.data.augment, experiment.recipe)


def _student(experiment: Experiment) -> Trainable:
    config = experiment.config
    return _trainable(experiment, experiment.models.student, "lr", config.student_wait, config.unroll)


def _mpl(experiment: Experiment, networks: Networks) -> Method:  # noqa: ARG001 - it needs none
    teacher = _trainable(experiment, experiment.models.teacher, "teacher_lr")
    labels, augment = TARGETS[experiment.labels], experiment.data.augment
    return meta_pseudo_labels(teacher, _student(experiment), experiment.estimator, labels, augment, experiment.recipe)


def _reduced(experiment: Experiment, networks: Networks) -> Method:
    teacher, fixed = _trainable(experiment, experiment.models.calibrator, "teacher_lr"), networks["fixed"]
    labels, augment = TARGETS[experiment.labels], experiment.data.augment
    see = reduced.lookup(reduced.said(experiment.models.teacher, fixed, experiment.data.x, augment))
    alone = _without_uda(experiment)  # what a fixed teacher said has no other view to be consistent with
    method = meta_pseudo_labels(teacher, _student(experiment), experiment.estimator, labels, augment, alone, see)
    return method._replace(networks=lambda state: reduced.composing(fixed, method.networks(state)))


def _finetune(experiment: Experiment, networks: Networks) -> Method:
    trainable = Trainable(experiment.models.student, optim.sgd(experiment.number("finetune_lr"), momentum=0.9))
    return baselines.supervised(trainable, experiment.data.augment, _without_uda(experiment), networks["ema"])


METHODS: dict[str, Callable[[Experiment, Networks], Method]] = {
    "supervised": _supervised,
    "pseudo-labels": _pseudo_labels,
    "uda": _uda,
    "fixed": _fixed,
    "mpl": _mpl,
    "reduced": _reduced,
}


def run(experiment: Experiment, report: Report, tick: loop.Tick = loop.no_tick, strict: bool = True) -> Result:
    """Train what the configuration asks for, and evaluate every network at the end, on the final weights.

    Raises:
        InputError: a loss that is no longer finite, where `strict`.
    """
    networks: Networks = {}
    for part in plan(experiment.config):
        phase = part.phase(experiment, networks)
        state = loop.fit(phase, report, experiment.config.report_every, tick, strict)
        networks.update(part.keep(phase.method.networks(state)))
    return judge(experiment, networks)


def judge(experiment: Experiment, networks: Networks) -> Result:
    """The result that trained networks are."""
    logits = {name: predict(experiment, name, network, "test") for name, network in networks.items()}
    y = experiment.data.y_test
    return Result(
        networks,
        evaluate(experiment, networks, "validation"),
        {name: metrics.evaluate(found, y) for name, found in logits.items()},
        {name: metrics.confusion(found, y).cpu() for name, found in logits.items()},
    )


def batches(
    experiment: Experiment, unroll: int = 1, sizes: tuple[int, int] | None = None
) -> Callable[[int], loader.Batch]:
    """The batches of a setting, with `unroll` unlabelled ones in each; of other `sizes`, labelled and unlabelled."""
    data = experiment.data
    wanted = sizes or (experiment.config.labelled_batch, experiment.config.batch)
    at = loader.batches(data.x, data.y, experiment.split, wanted, experiment.keys.batches, unroll)
    return at if isinstance(data.x, Tensor) else loader.ahead(at)


def predict(experiment: Experiment, name: str, network: Variables, part: str) -> Tensor:
    """Logits `[examples, classes]` of a network on the "validation" part or the "test" set."""
    data = experiment.data
    x = data.x_test if part == "test" else subset(data.x, experiment.split.validation)
    return metrics.predict(experiment.models.of(name), *network, x, data.augment.prepare)


def evaluate(experiment: Experiment, networks: Networks, part: str) -> Rows:
    """Metrics of every network on the "validation" part or the "test" set; none where the part is empty."""
    data = experiment.data
    y = data.y_test if part == "test" else data.y[experiment.split.validation.to(data.y.device)]
    if not len(y):
        return {}
    return {name: metrics.evaluate(predict(experiment, name, network, part), y) for name, network in networks.items()}


def look(experiment: Experiment, progress: loop.Progress) -> dict[str, Any]:
    """A run on its way, as a line of its log: means of the metrics, the validation part, the pseudo labels."""
    line = {
        "phase": progress.phase,
        "step": progress.step,
        "metrics": progress.metrics,
        "validation": evaluate(experiment, progress.networks, "validation"),
    }
    if "teacher" in progress.networks:
        line["pseudo_labels"] = pseudo_label_quality(experiment, progress.networks["teacher"])
    return line


def pseudo_label_quality(experiment: Experiment, teacher: Variables) -> dict[str, float]:
    """How right and how sure the teacher is on unlabelled examples, evenly spaced; see `metrics.pseudo_labels`.

    It uses classes that the training does not see, where the data has them, and nothing but the log does with it.
    """
    data, unlabelled = experiment.data, experiment.split.unlabelled
    some = unlabelled[torch.linspace(0, len(unlabelled) - 1, min(WATCHED, len(unlabelled))).long()]
    logits = metrics.predict(experiment.models.of("teacher"), *teacher, subset(data.x, some), data.augment.prepare)
    return metrics.pseudo_labels(logits, data.y[some.to(data.y.device)], experiment.config.uda_threshold)
