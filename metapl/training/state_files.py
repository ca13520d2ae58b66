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


def states(folder: Path) -> list[Path]:
    """The states below the folder of a run, the last one first."""
    return sorted((folder / STATES).glob("state-*.safetensors"), reverse=True)


def newest(folder: Path) -> Stored | None:
    """The last state below the folder of a run that is whole; a warning tells of those that are not.

    Raises:
        InputError: another version of metapl wrote it, or another program.
    """
    for path in states(folder):
        try:
            found = sealed.read(path)
        except InputError as error:
            LOG.warning("%s; the one before it is used", error)
        else:
            return stored.parsed(*found, str(path))
    return None


def clean_half(folder: Path) -> None:
    """Remove what a process that was killed left half written; this process must hold the folder."""
    for place in (folder, folder / STATES, folder / "plots"):
        remove(place.glob(".*.tmp*"))


def remove(paths: Iterable[Path]) -> None:
    """Remove files, as far as that is possible."""
    for path in paths:
        with suppress(OSError):
            path.unlink()
