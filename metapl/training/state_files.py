"""The files below a run's folder that hold where it stands: their names, their order, and which of them can be read."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from metapl.files import sealed
from metapl.registry.errors import InputError
from metapl.training import stored
from metapl.training.stored import Stored

STATES = Path("checkpoints")
"""Where they are, below the folder of a run."""

LOG = logging.getLogger("metapl")
"""Where it is said that a state cannot be read."""


def named(steps: int) -> str:
    """The name of the state after so many steps of the run, all phases counted."""
    return f"state-{steps:012}.safetensors"


def steps_of(path: Path) -> int:
    """The steps that `named` put into the name of a state; 0 where it is another name."""
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else 0


def states(*folders: Path) -> list[Path]:
    """The states below these folders of a run, its own and its spare one, the last one first."""
    found = [path for folder in folders for path in (folder / STATES).glob("state-*.safetensors")]
    return sorted(found, key=lambda path: path.name, reverse=True)


def spare(folder: Path, place: str) -> list[Path]:
    """The folder for the states of a run that its own cannot take, below the one that the user names, if any."""
    return [Path(place) / folder.name] if place else []


def newest(*folders: Path) -> Stored | None:
    """The last state below these folders of a run that is whole; a warning tells of those that are not.

    Raises:
        InputError: another version of metapl wrote it, or another program.
    """
    for path in states(*folders):
        try:
            found = sealed.read(path)
        except InputError as error:
            LOG.warning("%s; the one before it is used", error)
        else:
            return stored.parsed(*found, str(path))
    return None


def follow(name: str, then: Path, now: Path) -> None:
    """Have a state be below the folder of its run where somebody has renamed that while the state was written."""
    if then == now or not (then / STATES / name).exists():
        return
    (now / STATES).mkdir(exist_ok=True)
    (then / STATES / name).replace(now / STATES / name)
    with suppress(OSError):  # another run may have taken the name
        (then / STATES).rmdir()
        then.rmdir()


def clean_half(folder: Path) -> None:
    """Remove what a process that was killed left half written; this process must hold the folder."""
    for place in (folder, folder / STATES, folder / "plots"):
        remove(place.glob(".*.tmp*"))


def remove(paths: Iterable[Path]) -> None:
    """Remove files, as far as that is possible."""
    for path in paths:
        with suppress(OSError):
            path.unlink()
