"""What a study has found: means over seeds, and differences to the arm that the others are compared with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from metapl import methods
from metapl.registry.errors import InputError
from metapl.studies import paired, specification
from metapl.studies.execution import Run
from metapl.studies.paired import Difference
from metapl.studies.specification import Given, Study
from metapl.training.run_files import NETWORKS
from metapl.training.run_folder import BEST

JUDGED = ("auto", *BEST, *(name for name in NETWORKS if name not in BEST))
"""The networks that a table may be about; "auto" takes the first of `run_folder.BEST` that a run has."""


class Row(NamedTuple):
    """One arm in one condition."""

    condition: Mapping[str, Any]
    arm: str
    network: str
    """That is judged."""
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    """Of the metric, one a seed."""
    diverged: int
    """Runs whose weights are not finite at the end; they count as what they predict."""
    difference: Difference | None
    """To the arm that is compared with, on the seeds that both have; None for itself, or without common seeds."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """The sample standard deviation over the seeds; 0 for a single one."""
        return paired.deviation(self.values)

    @property
    def interval(self) -> float:
        """Half of the 95 % confidence interval of the mean."""
        return paired.half_interval(self.values)


def rows(
    about: Study, runs: Sequence[Run], part: str = "test", network: str = "auto", metric: str = "top1"
) -> list[Row]:
    """The table of a study, condition by condition, arm by arm; arms without a finished run are left out.

    Args:
        about: the study.
        runs: those that are finished.
        part: "test", or "validation" for choosing.
        network: one of `JUDGED`; a run that lacks it is judged by "auto".
        metric: of `metapl.evaluation.metrics.METRICS`.

    Raises:
        InputError: a part without examples.
    """
    if not all(run[part] for run in runs):
        raise InputError(f"there are runs without a {part} part: give validation in [common], such as 100")
    found = []
    for condition in specification.conditions(about):
        here = [run for run in runs if run["setting"] == condition]
        first = {arm: _first(about, condition, arm, network) for arm in about.arms}
        scores = {arm: _scores([run for run in here if run["arm"] == arm], part, first[arm], metric) for arm in first}
        for arm, by_seed in scores.items():
            if not by_seed:
                continue
            mine = [run for run in here if run["arm"] == arm]
            difference = None if arm == about.against else _difference(by_seed, scores[about.against])
            diverged = sum(not run["finite"] for run in mine)
            judged = _judged(mine[0], first[arm])
            found.append(Row(condition, arm, judged, tuple(by_seed), tuple(by_seed.values()), diverged, difference))
    return found


def _first(about: Study, condition: Given, arm: str, network: str) -> tuple[str, ...]:
    """The networks that an arm is judged by, in the order in which they are looked for."""
    method = {**about.common, **condition, **about.arms[arm]}.get("method", "")
    return network, *methods.preferred(method)


def _judged(run: Run, first: Sequence[str]) -> str:
    found = [name for name in first if name in run["test"]]
    if not found:
        raise InputError(f"the run of {run['arm']}, seed {run['seed']}, has none of {', '.join(BEST)}: remove its file")
    return found[0]


def _scores(runs: Sequence[Run], part: str, first: Sequence[str], metric: str) -> dict[int, float]:
    found = {run["seed"]: run[part][_judged(run, first)][metric] for run in runs}
    return {seed: value for seed, value in found.items() if value is not None}  # no likelihood of what diverged


def _difference(scores: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    both = sorted(set(scores) & set(reference))
    return paired.compare([scores[seed] for seed in both], [reference[seed] for seed in both]) if both else None


class Pair(NamedTuple):
    """Two arms in one condition."""

    condition: Mapping[str, Any]
    arm: str
    minus: str
    difference: Difference


def pairs(about: Study, runs: Sequence[Run], part: str = "test") -> list[Pair]:
    """The further comparisons of a study, by condition, where both arms have a run of one seed; see `rows`."""
    found = []
    for arm, minus in about.pairs:
        both = about._replace(against=minus, arms={name: about.arms[name] for name in (minus, arm)})
        compared = [row for row in rows(both, runs, part) if row.arm == arm]
        found += [Pair(row.condition, arm, minus, row.difference) for row in compared if row.difference]
    return sorted(found, key=lambda pair: specification.conditions(about).index(pair.condition))
