"""Where a run is logged: `metrics.jsonl` always, TensorBoard and trackio if asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from metapl.config import TrainConfig
from metapl.errors import unknown

Line = dict[str, Any]
"""One report of a phase: phase, step, and numbers in nested dicts."""


class Log(NamedTuple):
    """A place to log to."""

    write: Callable[[Line], None]
    close: Callable[[], None]


def jsonl(config: TrainConfig, folder: Path) -> Log:
    """One JSON object a line in `metrics.jsonl`; NaN, which JSON has not, is null."""
    del config
    file = (folder / "metrics.jsonl").open("a")

    def write(line: Line) -> None:
        file.write(json.dumps(_jsonable(line), allow_nan=False) + "\n")
        file.flush()

    return Log(write, file.close)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(part) for key, part in value.items()}
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN


LOGGERS: dict[str, Callable[[TrainConfig, Path], Log]] = {}


def start(config: TrainConfig, folder: Path) -> list[Log]:
    """The logs of a run.

    Raises:
        InputError: a logger of another name, or one whose package is not installed.
    """
    names = [name.strip() for name in config.log.split(",") if name.strip()]
    for name in names:
        if name not in LOGGERS:
            raise unknown("log", name, LOGGERS)
    return [jsonl(config, folder), *(LOGGERS[name](config, folder) for name in names)]
