"""The folder of a study: what it was begun with, and what is made of its runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metapl.files import storage
from metapl.registry.errors import InputError
from metapl.studies import specification, tables
from metapl.studies.execution import Run
from metapl.studies.specification import Study
from metapl.training.machine import environment

RUNS = Path("runs")
"""Below the folder of a study: a file a run."""


def start(out: Path, about: Study) -> dict[str, Any]:
    """Make the folder of a study, or go on in one that holds the same, be it with more seeds or other pairs.

    Returns:
        The environment that the study was begun in.

    Raises:
        InputError: it holds another study, or something else, or a damaged file.
    """
    path = out / "study.toml"
    if path.exists():
        before = specification.read(path)
        if specification.dump(before._replace(seeds=about.seeds, pairs=about.pairs)) != specification.dump(about):
            raise InputError(f"--out {out} holds another study: name another folder, or remove this one")
    elif out.exists() and (not out.is_dir() or any(not one.name.startswith(".") for one in out.iterdir())):
        raise InputError(f"--out {out} exists and holds no study: name a new folder")
    storage.write_text(path, specification.dump(about))
    record = out / "environment.json"
    if not record.exists():
        storage.write_json(record, environment())
    try:
        found = storage.read_json(record)
        if not isinstance(found, dict):
            raise ValueError("no table")
    except (OSError, ValueError) as error:
        raise InputError(f"{record} cannot be read ({error}): remove it, and it is made again") from None
    return found


def finish(out: Path, about: Study, runs: Sequence[Run]) -> None:
    """Write what is made of the runs: `runs.jsonl`, `table.md`, and `validation.md` if all have that part."""
    storage.write_text(out / "runs.jsonl", lines(runs))
    storage.write_text(out / "table.md", tables.markdown(about, runs))
    if all(run["validation"] for run in runs):
        storage.write_text(out / "validation.md", tables.markdown(about, runs, "validation"))


def lines(runs: Sequence[Run]) -> str:
    """The runs as JSON lines, small enough to keep: without logs, and without configurations, which the study gives."""
    kept = ("setting", "arm", "seed", "finite", "validation", "test")
    return "".join(json.dumps({name: _rounded(run[name]) for name in kept}) + "\n" for run in runs)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items() if key != "top5"}
    return round(value, 6) if isinstance(value, float) else value
