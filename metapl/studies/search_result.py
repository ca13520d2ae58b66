"""What a search leaves: its trials, and the study with the values found, which `metapl ablate` runs on other seeds."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

from metapl import __version__
from metapl.files import storage
from metapl.studies import specification
from metapl.studies.checks import Given
from metapl.studies.search import Search, Trial
from metapl.studies.search_space import Budget
from metapl.studies.specification import Study


def write(about: Study, budget: Budget, searches: Sequence[Search], out: Path) -> list[Path]:
    """Write `trials.jsonl`, and for every condition the study with the values found; these are returned."""
    storage.write_text(out / "trials.jsonl", "".join(_line(one, trial) for one in searches for trial in one.trials))
    paths = []
    for condition in specification.conditions(about):
        here = [search for search in searches if search.condition == condition]
        paths.append(out / f"{_file('-'.join(filter(None, ['tuned', specification.label(condition)])))}.toml")
        storage.write_text(paths[-1], specification.dump(tuned(about, condition, here), comment(budget, here)))
    return paths


def _file(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.=," else "_" for c in name)


def _line(search: Search, trial: Trial) -> str:
    about = {"setting": dict(search.condition), "arm": search.arm, "number": trial.number, "values": trial.values}
    return json.dumps({**about, "mean": trial.mean, "scores": trial.scores}) + "\n"


def tuned(about: Study, condition: Given, searches: Sequence[Search]) -> Study:
    """The study in one condition, every arm with the values that its search found."""
    arms = {search.arm: {**about.arms[search.arm], **search.best.values} for search in searches}
    return about._replace(common={**about.common, **condition}, over={}, arms=arms)


def comment(budget: Budget, searches: Sequence[Search]) -> str:
    """How the values of one condition were found, and what they gained."""
    lines = [
        f"Tuned by metapl {__version__}: {budget.trials} trials of every arm on the seeds {budget.seeds[0]} to "
        f"{budget.seeds[-1]}, by TPE of optuna {importlib.metadata.version('optuna')}.",
        "Chosen by the mean top-1 on the validation part of the network that `metapl ablate` judges:",
    ]
    return "\n".join(lines + [f"{search.arm}: {gain(search)} % on {search.examples} examples" for search in searches])


def gain(search: Search) -> str:
    """The score before and after, in per cent."""
    before = f"{100 * search.before.mean:.2f}" if search.before else "–"
    return f"{before} → {100 * search.best.mean:.2f}"
