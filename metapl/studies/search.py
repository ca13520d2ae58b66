"""Hyperparameters of every arm of a study, chosen on the validation part, with the same budget for all.

Trials are asked of optuna in rounds, and all runs of a round are one sweep. Asking depends on the study file and on the
results alone, and every run is a file: a search that was stopped goes on by asking again.
"""

from __future__ import annotations

import importlib
import statistics
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from metapl.core import rng
from metapl.registry import launch
from metapl.registry.errors import InputError
from metapl.studies import execution, folder, results, specification
from metapl.studies.checks import Given
from metapl.studies.search_space import Budget, Choices, Range
from metapl.studies.specification import Study
from metapl.training.experiment import prepare

ROUND = 8
"""Most trials of an arm that are asked at once; the first round is drawn at random, the later ones from results."""


class Trial(NamedTuple):
    """One configuration of an arm."""

    number: int
    values: Given
    scores: tuple[float, ...]
    """Top-1 on the validation part of the network that `ablation.rows` judges, one a seed."""

    @property
    def mean(self) -> float:
        """What is to be as high as it can be."""
        return statistics.fmean(self.scores)


class Search(NamedTuple):
    """The search for one arm in one condition."""

    about: Study
    """The study with this condition and this arm alone, on the seeds of the budget."""
    condition: Given
    arm: str
    space: dict[str, Choices | Range]
    own: Given
    """The study's values of what is tuned, those that may be tried."""
    examples: int
    """In the validation part."""
    optuna: Any
    """The optuna study, which knows the trials too."""
    trials: tuple[Trial, ...] = ()

    @property
    def before(self) -> Trial | None:
        """The trial with the study's own values; None if they may not all be tried."""
        return self.trials[0] if set(self.own) == set(self.space) else None

    @property
    def best(self) -> Trial:
        """The trial that is chosen; the first of those that are as good."""
        return max(self.trials, key=lambda trial: trial.mean)


def start(about: Study, budget: Budget, out: Path) -> list[Search]:
    """The searches of a study, condition by condition and arm by arm, and its folder; see `folder.start`.

    Raises:
        InputError: optuna is not installed, several processes, an arm without validation examples, or a folder that
            holds something else.
    """
    package = _package()
    if launch.processes() > 1:
        raise InputError("metapl tune is one process, since trials depend on those before: start it without torchrun")
    conditions = specification.conditions(about)
    searches = [_search(package, about, budget, condition, arm) for condition in conditions for arm in about.arms]
    folder.start(out, about)
    return searches


def run(
    searches: Sequence[Search], budget: Budget, out: Path, together: int, say: execution.Say, tick: execution.Tick
) -> list[Search]:
    """The searches with all their trials.

    Args:
        searches: of `start`.
        budget: of `metapl.studies.search_space.read`.
        out: the folder, with a file a run below `folder.RUNS`.
        together: most runs in one population.
        say: as of `execution.run`.
        tick: as of `execution.run`; `done` counts the runs of earlier rounds too.
    """
    place = out / folder.RUNS
    for first in range(0, budget.trials, ROUND):

        def report(at: execution.Progress, before: int = first * len(budget.seeds) * len(searches)) -> None:
            tick(at._replace(done=before + at.done))

        asked = [_ask(search, min(ROUND, budget.trials - first)) for search in searches]
        jobs = [job for one in asked for job in specification.jobs(one.about)]
        execution.run(jobs, place, together, say, report)
        runs = execution.read(jobs, place)
        searches = [_tell(one, results.rows(one.about, runs, "validation")) for one in asked]
    return list(searches)


def _package() -> Any:
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise InputError(f"metapl tune needs a package ({error}): pip install 'metapl[tune]'") from None


def _search(package: Any, about: Study, budget: Budget, condition: Given, arm: str) -> Search:
    given = about.arms[arm]
    over = {key: [value] for key, value in condition.items()}
    alone = about._replace(over=over, arms={arm: given}, seeds=budget.seeds, against=arm)
    config, space = specification.jobs(alone)[0].config, budget.of(given)
    examples = len(prepare(config).split.validation)
    if not examples:
        where = " of ".join(part for part in (f"arm {arm!r}", specification.label(condition)) if part)
        raise InputError(f"{where} has no validation examples to choose on: give validation in [common], such as 100")
    own = {key: getattr(config, key) for key, values in space.items() if values.holds(getattr(config, key))}
    return Search(alone, condition, arm, space, own, examples, _optuna(package, budget, own))


def _optuna(package: Any, budget: Budget, own: Given) -> Any:
    """An optuna study whose first trial has the study's own values, so that tuning does not do worse than they."""
    # The same for all arms: those that tune the same start with the same trials.
    seed = int(rng.randint(rng.key(budget.seeds[0]), (), 2**32))
    with _quiet(package):
        sampler = package.samplers.TPESampler(seed=seed, n_startup_trials=ROUND, constant_liar=True)
        found = package.create_study(direction="maximize", sampler=sampler)
    found.enqueue_trial(own)
    return found


@contextmanager
def _quiet(package: Any) -> Iterator[None]:
    """Without the line that a study was made, and the warning of older versions that liars are experimental."""
    level = package.logging.get_verbosity()
    package.logging.set_verbosity(package.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", package.exceptions.ExperimentalWarning)
            yield
    finally:
        package.logging.set_verbosity(level)


class _Asked(NamedTuple):
    """A search with trials that it waits for."""

    search: Search
    optuna: list[Any]
    """The optuna trials."""
    values: list[Given]
    about: Study
    """What has to be trained: an arm for each configuration that is new."""


def _ask(search: Search, count: int) -> _Asked:
    distributions = {key: _distribution(values) for key, values in search.space.items()}
    trials = [search.optuna.ask(distributions) for _ in range(count)]
    values = [_values(search, trial) for trial in trials]
    tried, arms = [trial.values for trial in search.trials], {}
    for trial, found in zip(trials, values, strict=True):
        if found not in tried:  # training it again would give the same
            arms[_name(search, trial.number)] = {**search.about.arms[search.arm], **found}
            tried.append(found)
    return _Asked(search, trials, values, search.about._replace(arms=arms, against=next(iter(arms), "")))


def _name(search: Search, number: int) -> str:
    """The arm that a trial is among the runs."""
    return f"{search.arm}#{number}"


def _distribution(values: Choices | Range) -> Any:
    known = _package().distributions
    if isinstance(values, Choices):
        return known.CategoricalDistribution(values.values)
    kind = known.IntDistribution if isinstance(values.low, int) else known.FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _values(search: Search, trial: Any) -> Given:
    own = {} if trial.number else search.own
    return {key: own.get(key, values.tidy(trial.params[key])) for key, values in search.space.items()}


def _tell(asked: _Asked, rows: Sequence[results.Row]) -> Search:
    search, trials = asked.search, list(asked.search.trials)
    scores = {row.arm: row.values for row in rows}
    for trial, values in zip(asked.optuna, asked.values, strict=True):
        same = next((one.scores for one in trials if one.values == values), ())
        trials.append(Trial(trial.number, values, same or scores[_name(search, trial.number)]))
        search.optuna.tell(trial, trials[-1].mean)
    return search._replace(trials=tuple(trials))
