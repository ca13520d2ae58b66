"""The runs of a study: each in a file of its own, so that a killed study goes on where it stopped.

Runs that can be vectorised train together (`metapl.training.population`), the others one after another. Under torchrun,
or wherever `RANK` and `WORLD_SIZE` are set, every process takes its share of the runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import torch

from metapl.core import tree
from metapl.evaluation.metrics import ADDED, METRICS
from metapl.files import storage
from metapl.registry import launch
from metapl.registry.errors import InputError
from metapl.studies.specification import Job
from metapl.training import automatic, loop, phases, population, watching
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare
from metapl.training.phases import Result

T = TypeVar("T")

Run = dict[str, Any]
"""A finished run as JSON: `setting`, `arm`, `seed`, `config`, `finite`, `validation`, `test`, `log`."""

Log = list[dict[str, Any]]
"""What `experiment.look` saw on the way."""


class Progress(NamedTuple):
    """Where a sweep stands."""

    done: int
    """Runs of this process that are finished."""
    runs: int
    """That are being trained now."""
    name: str
    """Of the first of them."""
    phase: str
    step: int
    steps: int


Tick = Callable[[Progress], None]
"""Called after every step."""

Say = Callable[[str], None]
"""Called with a line of text."""


def run(jobs: Sequence[Job], folder: Path, together: int, say: Say, tick: Tick) -> None:
    """Train the jobs that have no file in the folder yet.

    Args:
        jobs: what to train; the same job may occur once.
        folder: of the files, one a run, written when the run is finished.
        together: most runs in one population; 1 for one after another.
        say: is given a line that says why runs that could be a population are not.
        tick: called after every step.

    Raises:
        InputError: a folder that holds runs of another study, or that cannot be written.
    """
    _require_files(jobs)
    done = {job.name for job in jobs if _done(folder, job)}
    for group in mine(groups(jobs, together)):
        if all(job.name in done for job in group):
            continue
        # A population is made whole again, so that what was killed in the middle ends as it would have.
        for job, found in _train(group, done, say, lambda *at: tick(Progress(len(done), *at))):
            storage.write_text(_path(folder, job), json.dumps(found) + "\n")
            done.add(job.name)


def check(jobs: Sequence[Job]) -> None:
    """Look for what is wrong before anything is trained: an experiment of every kind of run is prepared.

    Raises:
        InputError: what is wrong.
    """
    _require_files(jobs)
    for group in groups(jobs, len(jobs)):
        prepare(group[0].config)


LONGEST = 200
"""Bytes of the name of a file, of which most file systems allow 255."""


def _require_files(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if len(_path(Path(), job).name) > LONGEST:
            raise InputError(f"run {job.name!r} is too long for the name of a file: name the arms in a TOML file")


def mine(work: Sequence[T]) -> Sequence[T]:
    """The part of the work of this process."""
    return work[launch.rank() :: launch.processes()]


def groups(jobs: Sequence[Job], together: int) -> list[list[Job]]:
    """The jobs in populations of at most so many, in the order of their first members."""
    found: dict[Any, list[list[Job]]] = {}
    for job in jobs:
        batches = found.setdefault(population.alike(job.config), [[]])
        if len(batches[-1]) == together:
            batches.append([])
        batches[-1].append(job)
    return [batch for batches in found.values() for batch in batches]


def read(jobs: Sequence[Job], folder: Path) -> list[Run]:
    """The runs of these jobs that are finished, in their order."""
    return [found for job in jobs if (found := _done(folder, job))]


def _path(folder: Path, job: Job) -> Path:
    return folder / f"{quote(job.name, safe=' =,')}.json"


DEFAULTS = {**asdict(TrainConfig()), **automatic.BEFORE}
"""What a run was made with where its file does not say: it is of a version without that field."""


def _done(folder: Path, job: Job) -> Run | None:
    path = _path(folder, job)
    try:
        text = storage.read_text(path) if path.exists() else ""
        if not text.strip("\0 \n"):  # what a crash of the machine can leave of a file that was being written
            return None
        found = storage.parse_json(text)
        _require_run(found)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it, and the run is made again") from None
    found["config"] = {**DEFAULTS, **found["config"]}
    for part in ("validation", "test"):
        found[part] = {name: {**row, **{added: row.get(added) for added in ADDED}} for name, row in found[part].items()}
    own = {"setting": dict(job.condition), "arm": job.arm, "seed": job.config.seed, "config": asdict(job.config)}
    if any(found[name] != value for name, value in own.items()):
        raise InputError(f"{path} is of another study: name another folder, or remove this one")
    return found


def _require_run(found: Any) -> None:
    """Check that a file holds what `_as_json` wrote, so that whatever is made of it can rely on that.

    Raises:
        ValueError: it does not.
    """
    kinds = {"setting": dict, "arm": str, "seed": int, "config": dict, "finite": bool}
    kinds |= {"validation": dict, "test": dict, "log": list}
    if not isinstance(found, dict) or any(type(found.get(name)) is not kind for name, kind in kinds.items()):
        raise ValueError(f"no run with {', '.join(kinds)}")
    for part in ("validation", "test"):
        if not _are_rows(found[part]):
            raise ValueError(f"{part} is no table of metrics by network")
    if not found["test"]:
        raise ValueError("test is empty")
    if not all(_is_look(line) for line in found["log"]):
        raise ValueError("a line of the log is none")


ALWAYS = set(METRICS) - set(ADDED)
"""The metrics that runs of every version have."""


def _are_rows(rows: Any) -> bool:
    return isinstance(rows, dict) and all(_are_numbers(row) and set(row) >= ALWAYS for row in rows.values())


def _are_numbers(row: Any) -> bool:
    return isinstance(row, dict) and all(value is None or type(value) in (int, float) for value in row.values())


def _is_look(line: Any) -> bool:
    return (
        isinstance(line, dict)
        and type(line.get("phase")) is str
        and type(line.get("step")) is int
        and _are_numbers(line.get("metrics"))
        and _are_rows(line.get("validation"))
        and _are_numbers(line.get("pseudo_labels", {}))
    )


def _train(group: list[Job], done: Collection[str], say: Say, tick: Callable[..., None]) -> Iterator[tuple[Job, Run]]:
    """The runs of a group as they are finished: all of a population, of others those that are not done.

    `tick(runs, name, phase, step, steps)` is called after every step.
    """
    conditions = population.members([job.config for job in group])
    logs: list[Log] = [[] for _ in group]
    skip = [index for index, job in enumerate(group) if job.name in done]
    for index, event in population.train_all(conditions, skip):
        first = index or 0
        match event:
            case loop.Stepped(phase, step, steps):
                tick(len(group) if index is None else 1, group[first].name, phase, step, steps)
            case loop.Reported():
                logs[first].append(watching.look(conditions[first], event))
            case phases.Finished(result):
                yield group[first], _as_json(group[first], result, logs[first])
            case population.Apart(why):
                for log in logs:
                    log.clear()  # of what they had begun together
                say(f"one after another: {len(group)} runs such as {group[0].name}, since {why}")


def _as_json(job: Job, result: Result, log: Log) -> Run:
    finite = all(bool(torch.isfinite(leaf).all()) for leaf in tree.leaves(result.networks))
    return {
        "setting": dict(job.condition),
        "arm": job.arm,
        "seed": job.config.seed,
        "finite": finite,
        "validation": _without_nan(result.validation),
        "test": _without_nan(result.test),
        "config": asdict(job.config),
        "log": _without_nan(log),
    }


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
