"""How far a run is, by its files alone: the process that trains it is not asked."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from metapl import methods
from metapl.files import lock, schema
from metapl.training import run_files, run_folder, state_files

SILENT, TIMES = 60.0, 10
"""A run is silent if it has written nothing for so many seconds, and so many times what is usual."""

RECENT = 20
"""Times between lines of the log of which the median is usual: the last ones."""

Condition = Literal["running", "stopped", "finished"]
"""A run is running while a process holds its folder."""


class Progress(NamedTuple):
    """How far a run is."""

    run: str
    condition: Condition
    phase: str
    """The one that it is in; empty before its first report and first stored state."""
    step: int
    """The last one of the phase that is known of."""
    steps: int
    phases: tuple[str, ...]
    """All of them in order."""
    steps_per_second: float | None
    """Over the last two reports of the phase; None where there are not as many."""
    seconds_left: float | None
    """Of all phases, at the pace of this one."""
    stored: str
    """The last stored state, in words; empty if there is none."""
    stored_seconds_ago: float | None
    """By the times of files, as for all that is `ago`: they are off by as much as somebody sets the clock meanwhile."""
    written_seconds_ago: float | None
    """The last line of the log, or the last state if that is younger; None where there is neither."""
    usual_seconds: float | None
    """Between two lines of the log, a median; None where there are not as many."""
    silent: bool
    """Whether it is running and has written nothing for far longer than usual: something in it may hang."""
    curves: dict[str, list[float | None]]
    """Losses of the phase, and validation accuracy by network, at its reports; None for what is not finite."""


def of(run: Path, trust_code: bool = False) -> Progress:
    """How far a run is.

    Args:
        run: a folder that `metapl train` wrote.
        trust_code: whether code that the folder names may be imported, see `metapl.registry.trust`.

    Raises:
        InputError: not a run, or one with a log that is damaged.
    """
    config = run_folder.config(run, trust_code=trust_code)
    plan = {name: steps for name, steps in methods.lengths(config).items() if steps}
    log = _log(run)
    stored = state_files.states(run)
    known = [(line["phase"], line["step"]) for line in log[-1:] if line["phase"] in plan]
    known += [_place(plan, state_files.steps_of(path)) for path in stored[:1]]
    order = [*plan]
    phase, step = max(known, key=lambda at: (order.index(at[0]), at[1])) if known else ("", 0)
    rate = _rate(log, phase)
    done = (run / run_files.SUMMARY).is_file()
    condition: Condition = "finished" if done else "running" if lock.in_use(run) else "stopped"
    ages = [age for path in (*stored[:1], run / "metrics.jsonl") if (age := _age(path)) is not None]
    written, usual = min(ages, default=None) if log or stored else None, _between(log)
    left = sum(plan.values()) - sum(plan[name] for name in order[: order.index(phase)]) - step if phase else 0
    return Progress(
        run=str(run),
        condition=condition,
        phase=phase,
        step=step,
        steps=plan.get(phase, 0),
        phases=tuple(order),
        steps_per_second=rate,
        seconds_left=None if rate is None or done else left / rate,
        stored="step {1} of {2} of {0}".format(*_of(plan, stored[0])) if stored else "",
        stored_seconds_ago=_age(stored[0]) if stored else None,
        written_seconds_ago=written,
        usual_seconds=usual,
        silent=condition == "running" and _silent(written, usual),
        curves=_curves(log, phase),
    )


def below(folder: Path) -> list[Path]:
    """The runs in a folder, and in those of several seeds in it; the folder itself if it is one."""
    if (folder / "config.toml").is_file():
        return [folder]
    return sorted(path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/config.toml"))


def _log(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    lines = run_files.whole_lines(path).splitlines() if path.exists() else []
    return [run_files.LINE(schema.parse(line, str(path)), str(path)) for line in lines]


def _place(plan: Mapping[str, int], steps: int) -> tuple[str, int]:
    """The phase and its step after so many steps of the run."""
    for name, count in plan.items():
        if steps <= count:
            return name, steps
        steps -= count
    return [*plan.items()][-1]


def _of(plan: Mapping[str, int], path: Path) -> tuple[str, int, int]:
    name, step = _place(plan, state_files.steps_of(path))
    return name, step, plan[name]


def _rate(log: Sequence[Mapping[str, Any]], phase: str) -> float | None:
    """Steps a second between the last two reports of a phase."""
    known = [line for line in log if line["phase"] == phase and "seconds" in line][-2:]
    if len(known) < 2 or known[1]["seconds"] <= known[0]["seconds"]:
        return None
    return float((known[1]["step"] - known[0]["step"]) / (known[1]["seconds"] - known[0]["seconds"]))


def _between(log: Sequence[Mapping[str, Any]]) -> float | None:
    """The usual seconds between two lines."""
    known = [line["seconds"] for line in log if "seconds" in line][-RECENT - 1 :]
    gaps = [float(then - before) for before, then in itertools.pairwise(known)]
    return statistics.median(gaps) if gaps else None


def _silent(written: float | None, usual: float | None) -> bool:
    return written is not None and usual is not None and written > max(SILENT, TIMES * usual)


def _age(path: Path) -> float | None:
    """Seconds since a file was written, never less than 0; None if it is not there any more."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)  # noqa: TID251 - files have times of that clock
    except OSError:
        return None


def _curves(log: Sequence[Mapping[str, Any]], phase: str) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = {}
    for line in log:
        if line["phase"] == phase:
            for name, value in line["metrics"].items():
                found.setdefault(name, []).append(_known(value))
            for name, row in line["validation"].items():
                found.setdefault(f"validation of {name}", []).append(_known(row["top1"]))
    return found


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
