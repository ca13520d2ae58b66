"""Where a run is logged: `metrics.jsonl` always, TensorBoard and trackio if asked."""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from metapl.files import storage
from metapl.registry.errors import InputError, unknown
from metapl.training.config import TrainConfig

LOG = logging.getLogger("metapl")
"""Where it is said that lines are missing."""

Line = dict[str, Any]
"""One report of a phase: phase, step, and numbers in nested dicts."""


class Log(NamedTuple):
    """A place to log to."""

    write: Callable[[Line], None]
    close: Callable[[], None]


def jsonl(config: TrainConfig, folder: Path) -> Log:
    """One JSON object a line in `metrics.jsonl`; numbers that are not finite are null, since JSON has none."""
    del config
    return _appending(folder / "metrics.jsonl")


def _appending(path: Path) -> Log:
    """A log that survives a full disk: lines that cannot be written are kept, and tried again with the next one.

    A full disk does not end the run. Closing the log raises an error if lines are still missing.
    """
    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): name a folder that you may write") from None
    rest = b""

    def flush() -> None:
        nonlocal rest
        while rest:
            rest = rest[file.write(rest) :]

    def write(line: Line) -> None:
        nonlocal rest
        rest += (json.dumps(_jsonable(line), allow_nan=False) + "\n").encode()
        with suppress(OSError):
            flush()

    def close() -> None:
        with file:
            try:
                flush()
            except OSError as error:
                kept = path.read_bytes()
                file.truncate(kept.rfind(b"\n") + 1)  # no half line
                raise InputError(
                    f"{path} lacks its last lines ({error.strerror}): make room for the next run"
                ) from None

    return Log(write, close)


def rewind(folder: Path, before: Mapping[str, int], phase: str, step: int, every: int) -> None:
    """Cut `metrics.jsonl` to the lines that a run has written before a step of a phase, for it to go on from there.

    Args:
        folder: of the run.
        before: the phases that are over, with their steps.
        phase: the one that goes on.
        step: from which; the line of the step itself is not written yet.
        every: steps between lines.
    """
    path, kept, length = folder / "metrics.jsonl", 0, 0
    for line in storage.read_bytes(path, storage.TEXT).splitlines(keepends=True) if path.exists() else ():
        if not line.endswith(b"\n") or not _is_before(line, before, phase, step):
            break
        kept, length = kept + 1, length + len(line)
    if path.exists():
        os.truncate(path, length)
    wanted = sum(-(-steps // every) for steps in before.values()) + (step - 1) // every
    if kept < wanted:
        LOG.warning("%s lacks %d of the %d lines before the step that is next", path, wanted - kept, wanted)


def _is_before(line: bytes, before: Mapping[str, int], phase: str, step: int) -> bool:
    try:
        found = json.loads(line)
        return bool(found["phase"] in before or (found["phase"] == phase and found["step"] < step))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tensorboard(config: TrainConfig, folder: Path) -> Log:
    """Scalars named `PHASE/…` in the run's folder `tensorboard`, for `tensorboard --logdir`.

    Raises:
        InputError: the extra `tensorboard` is not installed.
    """
    del config
    writer = _package("tensorboard").SummaryWriter(str(folder / "tensorboard"))

    def write(line: Line) -> None:
        for name, value in _numbers(line).items():
            writer.add_scalar(name, value, line["step"])
        writer.flush()

    return Log(write, writer.close)


def trackio(config: TrainConfig, folder: Path) -> Log:
    """Numbers named `PHASE/…` in the trackio project `metapl`, as a run with the folder's name, for `trackio show`.

    They stay on this machine, in the folder that TRACKIO_DIR names, unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL names
    another place.

    Raises:
        InputError: the extra `trackio` is not installed.
    """
    package = _package("trackio")
    package.init(project="metapl", name=folder.resolve().name, config=asdict(config))
    return Log(lambda line: package.log(_numbers(line), step=line["step"]), package.finish)


def _numbers(line: Line) -> dict[str, float]:
    """The numbers of a report by their paths: the phase and the keys, with `/` between them."""
    return dict(_leaves({key: value for key, value in line.items() if key not in ("phase", "step")}, line["phase"]))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{name}/{key}")
    else:
        yield name, value


MODULES = {"tensorboard": "torch.utils.tensorboard", "trackio": "trackio"}
"""What each logger imports; the extra that brings it has the logger's name."""


def _package(name: str) -> Any:
    try:
        return importlib.import_module(MODULES[name])
    except ImportError as error:
        raise InputError(f"log = {name} needs a package ({error}): pip install 'metapl[{name}]'", "log") from None


LOGGERS: dict[str, Callable[[TrainConfig, Path], Log]] = {"tensorboard": tensorboard, "trackio": trackio}
"""The loggers by name, for `--log`."""


def require(config: TrainConfig) -> list[str]:
    """The loggers that a configuration asks for beside `jsonl`, all of them installed.

    Raises:
        InputError: a logger of another name, or one whose package is not installed.
    """
    names = list(dict.fromkeys(name.strip() for name in config.log.split(",") if name.strip()))
    for name in names:
        if name not in LOGGERS:
            raise unknown("log", name, LOGGERS)
        _package(name)
    return names


def start(config: TrainConfig, folder: Path) -> list[Log]:
    """The logs of a run.

    Raises:
        InputError: as `require`.
    """
    names = require(config)
    return [jsonl(config, folder), *(LOGGERS[name](config, folder) for name in names)]
