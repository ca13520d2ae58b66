"""Where what can be made again is kept, and how much of it."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from metapl.registry.errors import InputError

VARIABLE = "METAPL_CACHE"
"""Environment variable with another limit than `DEFAULT`, in GiB."""

DEFAULT = 64.0
"""GiB that a folder of what can be made again may hold."""

SHARE = 0.5
"""Of the free disk that one thing in it may take."""


class Removed(NamedTuple):
    """What had to make room."""

    things: int
    size: int
    """Bytes."""


def folder(kind: str) -> Path:
    """`metapl/KIND` below XDG_CACHE_HOME, else below `~/.cache`. It may be removed at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache") / "metapl" / kind


def most() -> int:
    """The limit in bytes.

    Raises:
        InputError: the environment variable is no number from zero on.
    """
    text = os.environ.get(VARIABLE, "") or str(DEFAULT)
    try:
        gib = float(text)
    except ValueError:
        gib = -1.0
    if not 0 <= gib < 2**23:
        raise InputError(f"{VARIABLE}={text} must be a number of GiB, such as 20")
    return int(gib * 2**30)


def make_room(place: Path, size: int) -> Removed | None:
    """Remove from a folder what was used longest ago, until it can take so many bytes within `most` and `SHARE`.

    Files with one stem are one thing, as old as the youngest of them. A process that has one open goes on with it.

    Returns:
        What was removed; None if there cannot be room for so much, in which case nothing is removed.

    Raises:
        OSError: the folder cannot be looked at.
        InputError: as of `most`.
    """
    things: dict[str, list[os.DirEntry[str]]] = defaultdict(list)
    with os.scandir(place) as found:
        for entry in found:
            if entry.is_file(follow_symlinks=False):
                things[entry.name.partition(".")[0]].append(entry)
    aged = sorted((max(one.stat().st_mtime_ns for one in files), _size(files), files) for files in things.values())
    held, free, count, gone = sum(size for _, size, _ in aged), shutil.disk_usage(place).free, 0, 0
    while held - gone + size > most() or size > SHARE * (free + gone):
        if count == len(aged):
            return None
        gone, count = gone + aged[count][1], count + 1
    for _, _, files in aged[:count]:
        for one in files:
            with suppress(FileNotFoundError):  # of which another process has thought too
                os.unlink(one.path)
    return Removed(count, gone)


def _size(files: list[os.DirEntry[str]]) -> int:
    """Bytes on the disk, without the holes in a file."""
    return sum(one.stat().st_blocks * 512 for one in files)
