"""What a report says of a run, as plain values: nothing here knows of a page or of a picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl import methods
from metapl.core import losses
from metapl.core.types import Variables
from metapl.evaluation import metrics
from metapl.registry.errors import InputError
from metapl.training import phases, run_files, run_folder
from metapl.training.experiment import Experiment

BASELINES = tuple(name for name, network in methods.networks().items() if network.reference)
"""What the final network is compared with: the first of these that a run has."""


class Judged(NamedTuple):
    """What a network says of each test example, `[examples]` each."""

    predicted: Tensor
    """Class indices."""
    confidence: Tensor
    """The largest probability, float64."""
    of_truth: Tensor
    """The probability of the right class, float64."""
    nll: Tensor
    """The negative log-likelihood in nats, float64."""
    among_five: Tensor
    """Whether the right class is among the five most probable."""


class Facts(NamedTuple):
    """A finished run."""

    run: Path
    experiment: Experiment
    networks: Mapping[str, Variables]
    summary: dict[str, Any]
    environment: dict[str, Any]
    log: list[dict[str, Any]]
    """The lines of `metrics.jsonl`."""
    final: str
    """The network that the run is about."""
    before: str
    """The one that finetuning began with, else the baseline; empty where there is neither."""
    baseline: str
    """One of `BASELINES`, or empty."""
    y: Tensor
    """Classes of the test examples `[examples]`."""
    judged: dict[str, Judged]
    """Of these three networks."""

    @property
    def confusion(self) -> Tensor:
        """Counts `[classes, classes]` of the final network: row the class, column what was predicted."""
        return metrics.counts(self.judged[self.final].predicted, self.y, self.experiment.data.classes)


class Bin(NamedTuple):
    """Test examples of about the same confidence, above `low` and up to `high`."""

    low: float
    high: float
    examples: int
    confidence: float
    """Its mean; NaN without examples."""
    accuracy: float
    """NaN without examples."""


class Difference(NamedTuple):
    """A mean over the test examples of one network less that of another, and its standard error."""

    value: float
    error: float


class Mistake(NamedTuple):
    """A test example that is not what it was taken for."""

    example: int
    """Its index in the test set."""
    truth: int
    predicted: int
    confidence: float
    of_truth: float


class Part(NamedTuple):
    """Examples of a part of the data by class."""

    counts: list[int]
    unknown: int
    """Examples whose class nobody knows."""


def gather(run: Path, device: str = "auto", trust_code: bool = False) -> Facts:
    """The facts of a finished run; its networks see the test set once more.

    Raises:
        InputError: not a run, one that is incomplete or damaged, or one whose data cannot be read any more.
    """
    experiment, networks = run_folder.load(run, device, trust_code)
    final = run_folder.best(networks, experiment.config.method)
    baseline = next((name for name in BASELINES if name in networks and name != final), "")
    before = next((phase.continues for phase in methods.phases().values() if final in phase.networks), "") or baseline
    if before and before not in networks:
        raise InputError(f"{run} has a finetuned network and not the averaged one that it began with: is it complete?")
    y = experiment.data.y_test.cpu()
    wanted = {name for name in (final, before, baseline) if name}
    return Facts(
        run,
        experiment,
        networks,
        _summary(run, networks),
        run_files.environment(run / "environment.json"),
        _log(run, experiment),
        final,
        before,
        baseline,
        y,
        {name: judge(phases.predict(experiment, name, networks[name], "test").cpu(), y) for name in wanted},
    )


def _summary(run: Path, networks: Mapping[str, Variables]) -> dict[str, Any]:
    found = run_files.summary(run / "summary.json")
    missing = [name for name in networks if name not in found["test"]]
    if missing:
        raise InputError(f"{run / 'summary.json'} says nothing of the network {missing[0]}: is the run complete?")
    return found


def _log(run: Path, experiment: Experiment) -> list[dict[str, Any]]:
    found = run_files.log(run / "metrics.jsonl")
    in_steps = not all(phase.fit for phase in methods.plan(experiment.config))
    if in_steps and not any(line["phase"] != "finetune" for line in found):
        raise InputError(f"{run / 'metrics.jsonl'} has no line of training: is the run complete?")
    return found


def judge(logits: Tensor, y: Tensor) -> Judged:
    """What logits `[examples, classes]` say, for classes `[examples]`."""
    logits = logits.double()
    nll = losses.cross_entropy(logits, y)
    confidence, predicted = torch.softmax(logits, -1).max(-1)
    best = logits.topk(min(5, logits.shape[-1]), dim=-1).indices
    return Judged(predicted, confidence, (-nll).exp(), nll, (best == y[:, None]).any(-1))


def reliability(judged: Judged, y: Tensor) -> list[Bin]:
    """The bins of the reliability diagram, those of `metrics.ece`: 15 of equal width, their upper end included."""
    right = (judged.predicted == y).double()
    ends, owner = metrics.edges().tolist(), metrics.bins(judged.confidence)
    bins = []
    for place, (low, high) in enumerate(itertools.pairwise(ends)):
        mine = owner == place
        mean = (values[mine].mean().item() for values in (judged.confidence, right))
        bins.append(Bin(low, high, int(mine.sum()), *mean))
    return bins


def hits(one: Tensor, other: Tensor) -> Difference:
    """The difference of two shares of hits, `[examples]` of bool each, with its paired standard error.

    √(b + c) / n, where b and c count the examples that one network alone has right (McNemar, Psychometrika 1947).
    """
    gap = one.double() - other.double()
    return Difference(gap.mean().item(), math.sqrt(gap.square().sum().item()) / len(gap))


def means(one: Tensor, other: Tensor) -> Difference:
    """The difference of two means, `[examples]` each, with its paired standard error; NaN of one example."""
    gap = one - other
    error = gap.std().item() if len(gap) > 1 else math.nan
    return Difference(gap.mean().item(), error / math.sqrt(len(gap)))


def mistakes(judged: Judged, y: Tensor, most: int) -> list[Mistake]:
    """The wrong test examples, the most confident ones first; of equal ones the first in the test set."""
    wrong = (judged.predicted != y).nonzero()[:, 0]
    order = wrong[torch.argsort(judged.confidence[wrong], descending=True, stable=True)][:most]
    columns = (order, y[order], judged.predicted[order], judged.confidence[order], judged.of_truth[order])
    return [Mistake(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def parts(experiment: Experiment) -> dict[str, Part]:
    """Examples by class of every part of the data."""
    data, split = experiment.data, experiment.split
    of_pool = {name: data.y.cpu()[index.cpu()] for name, index in split._asdict().items()}
    ordered = {name: of_pool[name] for name in ("labelled", "validation", "unlabelled")}
    return {name: _part(y, data.classes) for name, y in {**ordered, "test": data.y_test.cpu()}.items()}


def _part(y: Tensor, classes: int) -> Part:
    return Part(y[y >= 0].bincount(minlength=classes).tolist(), int((y < 0).sum()))


def drifted(facts: Facts) -> bool:
    """Whether the final network has not the accuracy any more that it had at the end of training."""
    right = (facts.judged[facts.final].predicted == facts.y).double().mean().item()
    return abs(right - facts.summary["test"][facts.final]["top1"]) * len(facts.y) > 0.5
