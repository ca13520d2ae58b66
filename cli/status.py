"""`metapl status`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metapl.cli.tell import TrustCode
from metapl.registry.errors import InputError

if TYPE_CHECKING:
    from metapl.training.progress import Progress

HELP = """Show how far a run is: phase, step, rate, time left, last stored state, curves. Or all runs in a folder."""

BLOCKS = "▁▂▃▄▅▆▇█"
"""Heights of a curve."""

WIDTH = 40
"""Of a curve, in columns."""


def status(
    place: Annotated[Path, typer.Argument(help="A folder that `metapl train` wrote, or one with such folders in it.")],
    json: Annotated[Path | None, typer.Option(help="Write the same to this file too.", show_default=False)] = None,
    trust_code: TrustCode = False,
) -> None:
    """See HELP."""
    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.files import storage  # noqa: PLC0415 - with those that import torch
    from metapl.training import progress  # noqa: PLC0415 - imports torch

    runs = progress.below(place)
    if not runs:
        raise InputError(f"{place} holds no run: name a folder that `metapl train` wrote")
    found = [progress.of(run, trust_code) for run in runs]
    for line in lines(found[0]) if len(found) == 1 else [brief(one) for one in found]:
        console.print(line)
    if json is not None:
        storage.write_json(json, [one._asdict() for one in found])


def lines(found: Progress) -> list[str]:
    """How far a run is, line by line."""
    from metapl.cli.display import duration  # noqa: PLC0415 - imports torch

    shown = [f"run        {found.run}", f"state      {found.condition}"]
    if found.phase:
        place = found.phases.index(found.phase) + 1
        shown.append(
            f"phase      {found.phase}, step {found.step} of {found.steps} (phase {place} of {len(found.phases)})"
        )
    if found.steps_per_second is not None and found.condition != "finished":
        left = f", about {duration(found.seconds_left)} left" if found.seconds_left is not None else ""
        shown.append(f"rate       {found.steps_per_second:.3g} steps a second{left}")
    if found.stored_seconds_ago is not None:
        shown.append(f"stored     {found.stored}, {duration(found.stored_seconds_ago)} ago")
    if found.silent:
        shown.append(f"silent     {_silence(found)}")
    width = max(map(len, found.curves), default=0)
    for name, values in found.curves.items():
        shown.append(f"{name:{width}}  {sparkline(values)}  {_number(values[0])} → {_number(values[-1])}")
    if found.condition == "stopped":
        shown.append(f"next       metapl train --resume {shlex.quote(found.run)}")
    return shown


def brief(found: Progress) -> str:
    """The same in one line."""
    where = f"{found.phase}, step {found.step} of {found.steps}" if found.phase else "no step yet"
    silent = f"; {_silence(found)}" if found.silent else ""
    return f"{found.condition:9} {found.run}: {where}{silent}"


def _silence(found: Progress) -> str:
    from metapl.cli.display import duration  # noqa: PLC0415 - imports torch

    seconds, usual = found.written_seconds_ago or 0.0, found.usual_seconds or 0.0
    short = duration(usual) if usual >= 1 else f"{usual:.2g} s"
    return f"nothing written for {duration(seconds)}, where {short} is usual"


def sparkline(values: Sequence[float | None], width: int = WIDTH) -> str:
    """A curve as text, at most so wide: the last value of each piece of it, and a space where that is not finite."""
    pieces = min(width, len(values))
    shown = [values[(piece + 1) * len(values) // pieces - 1] for piece in range(pieces)]
    known = [value for value in shown if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return "".join(" " if value is None else _block((value - low) / (high - low or 1.0)) for value in shown)


def _block(height: float) -> str:
    return BLOCKS[min(int(height * len(BLOCKS)), len(BLOCKS) - 1)]


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3f}"
