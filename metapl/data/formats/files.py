"""Files below a folder, in an order that does not depend on the file system."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Protocol

from metapl.registry.errors import InputError

JUNK = frozenset(
    ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__pycache__")
)
"""Folders that systems put beside those of people, in small letters; whatever begins with a dot is none either."""


class Readable(Protocol):
    """What can be read in one go and has a name: a `Path`, or a member of an archive. `str()` gives the name."""

    def read_bytes(self) -> bytes:
        """The whole of it."""
        ...


def shown(name: object) -> str:
    """A name as it can stand in a message of one line."""
    text = str(name)
    return text if text.isprintable() else ascii(text)


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{shown(error.filename)}: cannot be read ({error.strerror}): allow it or remove it")


def _leads_back(folder: str, name: str) -> bool:
    """Whether a folder in a folder is a link to one that it lies in, which would go round and round."""
    inner = os.path.join(folder, name)
    return os.path.islink(inner) and Path(folder).resolve().is_relative_to(Path(inner).resolve())


def _is_junk(folder: str) -> bool:
    return folder[0] == "." or folder.lower() in JUNK


def _walk(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:] = [name for name in folders if not _is_junk(name) and not _leads_back(where, name)]
        yield from (Path(where, name) for name in names if name[0] != ".")


def find(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """The files below a folder, at any depth, whose names end so.

    In the order of their relative paths, character by character, with `/` between the parts. Upper and lower case end
    alike; files and folders with a leading dot are skipped, and so are `JUNK`; links are followed.

    Raises:
        InputError: a folder that may not be read.
    """
    found = (file for file in _walk(folder) if file.name.lower().endswith(endings))
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def others(folder: Path, endings: tuple[str, ...]) -> Counter[str]:
    """How many files below a folder have names that end otherwise, by what these end with, as of `find`.

    Raises:
        InputError: a folder that may not be read.
    """
    names = (file.name.lower() for file in _walk(folder))
    return Counter(Path(name).suffix or "no ending" for name in names if not name.endswith(endings))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if entry.name[0] != "."]
    except OSError as error:
        _refuse(error)


def subfolders(folder: Path) -> list[Path]:
    """The folders directly below a folder, sorted by name; none with a leading dot.

    Raises:
        InputError: a folder that may not be read.
    """
    names = sorted(entry.name for entry in _entries(folder) if entry.is_dir())
    return [folder / name for name in names if not _is_junk(name)]


def holds(folder: Path, endings: tuple[str, ...]) -> bool:
    """Whether files directly in a folder have names that end so; as `find`, but for folders in it.

    Raises:
        InputError: a folder that may not be read.
    """
    return any(entry.name.lower().endswith(endings) and entry.is_file() for entry in _entries(folder))
