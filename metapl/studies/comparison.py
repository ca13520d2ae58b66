"""Every estimator of the feedback at one point of training: how near it is to the exact gradient, and what it costs.

Accuracy is found in float64, cost in the precision of training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl.core.types import Estimator, Instance
from metapl.estimators import AVAILABLE, exact
from metapl.evaluation import cost, quality
from metapl.evaluation.quality import Accuracy
from metapl.registry import notation
from metapl.registry.errors import InputError
from metapl.studies.snapshot import Stage, assign, draw

BASE = "none"
"""The estimator whose cost is 1: the learner's own step and the exam."""

TRUTH = "exact"
"""The estimator that the others are compared with."""

VARIANTS = ("first-order:baseline=0,reduction=sum",)
"""Compared by default beside the defaults of every estimator: the paper's in the form that is unbiased given v."""

TOGETHER = 64
"""Most draws that are vectorised at once."""

MEMORY = 2**29
"""Bytes that they may take together."""


class Plan(NamedTuple):
    """How much is measured."""

    draws: int = 400
    """Of every estimator that has randomness."""
    cosine: float = 0.9
    """The accuracy that draws are counted for."""
    rounds: int = 30
    """Timed calls of every estimator."""


class Cost(NamedTuple):
    """What one estimate costs, the learner's step and the exam included."""

    flops: int
    flops_ratio: float
    """To those of `none`, as of all fields named so."""
    milliseconds: float
    time_low: float
    """The lower quartile of the ratio of times in one round."""
    time_ratio: float
    """Its median."""
    time_high: float
    """Its upper quartile."""
    peak_memory_bytes: int


class Row(NamedTuple):
    """All about one estimator."""

    name: str
    claim: str
    labels: str
    accuracy: Accuracy
    cost: Cost
    curve: dict[str, list[float]]
    """For estimators with randomness: the cosine of the mean of 1, 3, 10, … draws, predicted and measured."""


class Report(NamedTuple):
    """What `compare` finds."""

    rows: list[Row]
    truths: dict[str, Accuracy]
    """By kind of labels: the truth that estimators are held to, itself compared with that of soft labels."""
    numbers: int
    """How many numbers the feedback has."""
    left_out: dict[str, str]
    """Why, by name."""


def choose(given: Sequence[str]) -> tuple[dict[str, Estimator], dict[str, str]]:
    """The estimators to compare by what was typed, `none` and `exact` first, and why others are left out.

    Args:
        given: as in `metapl train --grad`; empty for every one that is available.

    Raises:
        InputError: a given name or option that does not exist. An installed package that is broken is left out
            unless it was asked for.
    """
    names = dict.fromkeys([BASE, TRUTH, *(given or sorted([*AVAILABLE, *VARIANTS]))])
    built, left_out = {}, {}
    for name in names:
        try:
            built[name] = notation.build(name, AVAILABLE, "estimator")
        except InputError as error:
            if given:
                raise
            left_out[name] = str(error)
    return built, left_out


def compare(stage: Stage, estimators: Mapping[str, Estimator], plan: Plan, tell: Callable[[str], None]) -> Report:
    """Measure every estimator that takes this problem.

    The truth is the exact feedback for the estimator's own kind of labels. For sampled ones that is the mean of
    `exact` over draws of the labels, made with the same keys as the estimator's.

    Args:
        stage: where.
        estimators: by name; `none` and `exact` are among them, see `choose`.
        plan: how much is measured.
        tell: called with what is being done.

    Raises:
        InputError: the exact feedback is zero, so that nothing can be compared with it.
    """
    wanted = stage.experiment.config.pseudo_labels
    kinds = {name: one.targets[0] if wanted == "auto" else wanted for name, one in estimators.items()}
    usual = torch.promote_types(stage.experiment.data.x.dtype, torch.float32)  # images and features are stored smaller
    single = {kind: assign(stage, kind, usual) for kind in {*kinds.values()}}
    double = {kind: assign(stage, kind, torch.float64) for kind in {*kinds.values(), "soft"}}
    calls, left_out = _fitting(estimators, kinds, single, stage.experiment.config.unroll)
    tell("cost")
    costs = _costs(calls, plan.rounds, stage.experiment.device)
    truths, references, rows = {}, {}, []
    soft = draw(exact(), double["soft"], 2, 1, drawn=False)
    if not float(soft.norm()) > 0.0:
        raise InputError("the exact feedback is zero or not finite at this point: give other --steps, --seed or --lr")
    for kind in sorted({kinds[name] for name in calls}):
        tell(f"the truth for {kind} labels")
        truths[kind] = _draws(TRUTH, exact(), kind, double, costs, plan)
        references[kind] = quality.accuracy(truths[kind], soft, plan.cosine)
    for name in calls:
        tell(name)
        kind = kinds[name]
        draws = _draws(name, estimators[name], kind, double, costs, plan)
        found = quality.accuracy(draws, truths[kind], plan.cosine)
        rows.append(Row(name, estimators[name].claim, kind, found, costs[name], curve(draws, truths[kind], found)))
    return Report(rows, references, soft.numel(), left_out)


def _fitting(
    estimators: Mapping[str, Estimator], kinds: Mapping[str, str], single: Mapping[str, Instance], unroll: int
) -> tuple[dict[str, cost.Call], dict[str, str]]:
    """One estimate as a call, by name, and why others are left out."""
    calls: dict[str, cost.Call] = {}
    left_out = {}
    for name, one in estimators.items():
        call = partial(one.estimate, single[kinds[name]], one.init())
        try:
            if kinds[name] not in one.targets:
                raise ValueError(f"takes {' or '.join(one.targets)} labels, not {kinds[name]}")
            if unroll > 1 and not one.several:
                raise ValueError(f"takes one step at a time, not {unroll}")
            call()
        except ValueError as error:
            if name in (BASE, TRUTH):
                raise InputError(f"{name} does not take this problem ({error}), so nothing can be compared") from error
            left_out[name] = str(error)
        else:
            calls[name] = call
    return calls, left_out


def _draws(
    name: str,
    estimator: Estimator,
    kind: str,
    double: Mapping[str, Instance],
    costs: Mapping[str, Cost],
    plan: Plan,
) -> Tensor:
    fitting = MEMORY // max(1, 2 * costs[name].peak_memory_bytes)  # twice: float64
    together = max(1, min(TOGETHER, fitting))
    return draw(estimator, double[kind], plan.draws, together, drawn=kind == "sampled")


def _costs(calls: Mapping[str, cost.Call], rounds: int, device: torch.device) -> dict[str, Cost]:
    seconds = cost.interleave(calls, rounds, device)
    counts = {name: cost.flops(call) for name, call in calls.items()}
    found = {}
    for name, call in calls.items():
        low, middle, high = cost.quartiles([a / b for a, b in zip(seconds[name], seconds[BASE], strict=True)])
        _, median, _ = cost.quartiles(seconds[name])
        ratio = counts[name] / counts[BASE] if counts[BASE] else math.nan
        memory = cost.peak_memory(call, device)
        found[name] = Cost(counts[name], ratio, 1e3 * median, low, middle, high, memory)
    return found


def curve(draws: Tensor, truths: Tensor, found: Accuracy) -> dict[str, list[float]]:
    """The cosine of the mean of 1, 3, 10, … draws, predicted and measured; empty without randomness."""
    if len(draws) == 1:
        return {}
    noise = found.variance / found.norm_ratio**2 if found.norm_ratio else math.nan
    steps = [value for power in range(9) for value in (10**power, 3 * 10**power) if value <= len(draws)]
    return {
        "draws": [float(count) for count in steps],
        "predicted": [quality.predicted(found.cosine, noise, count) for count in steps],
        "measured": [quality.measured(draws, truths, count) for count in steps],
    }


def reach(row: Row) -> dict[str, float]:
    """What the asked-for accuracy costs: draws times the cost of one, in steps of the learner and in milliseconds."""
    draws = row.accuracy.draws_needed
    return {
        "flops_to_reach": draws * row.cost.flops_ratio,
        "time_to_reach": draws * row.cost.time_ratio,
        "milliseconds_to_reach": draws * row.cost.milliseconds,
    }


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values; what is infinite or not defined is null."""
    rows = [
        {"name": row.name, "claim": row.claim, "labels": row.labels}
        | row.accuracy._asdict()
        | row.cost._asdict()
        | reach(row)
        | {"curve": row.curve}
        for row in report.rows
    ]
    truths = {kind: found._asdict() for kind, found in report.truths.items()}
    value = {"numbers": report.numbers, "truths": truths, "rows": rows, "left_out": report.left_out}
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
