"""Files: written whole or not at all, and read within bounds."""

from __future__ import annotations

import errno
import json
import os
import stat
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from metapl.registry.errors import InputError

TEXT = 2**28
"""Bytes up to which a text is read: 256 MiB."""


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Have `save` write a temporary file beside `path`, then move it there in one step, once it is on the disk.

    Raises:
        InputError: the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(temporary)
        settle(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}): name a file that you may write"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def settle(temporary: Path, path: Path) -> None:
    """Give a file that has been written its own name, once it is on the disk.

    Raises:
        OSError: it cannot be.
    """
    flush(temporary)
    temporary.replace(path)
    with suppress(OSError):  # not every file system can do it for a folder, and the file is whole without
        flush(path.parent)


def flush(path: Path) -> None:
    """Wait until what was written is on the disk, or a crash could leave the new name with nothing in it.

    Raises:
        OSError: it cannot be.
    """
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8.

    Raises:
        InputError: the place cannot be written, or the text holds the name of a file that is not UTF-8.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        part = error.object[max(error.start - 20, 0) : error.end]
        raise InputError(f"{path} cannot be written ({part!a} is not UTF-8): rename what it is of") from None
    write(path, lambda temporary: temporary.write_bytes(data))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_bytes(path: Path, most: int) -> bytes:
    """A file as it is.

    Raises:
        OSError: it cannot be read, is no file (a pipe might never end), or has more than so many bytes.
    """
    with open(path, "rb", opener=_opener) as file:
        require_regular(file.fileno())
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"{size:,} bytes, of which at most {most:,} are read")
        return file.read()


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # or opening a pipe would wait for a writer


def require_regular(path: Path | int) -> None:
    """Check that a path or a file descriptor is a file: no folder, pipe or device.

    Raises:
        OSError: it is not, or cannot be looked at.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")


def read_text(path: Path) -> str:
    """A text in UTF-8, with the mark of it at the beginning or without.

    Raises:
        OSError: as `read_bytes`.
        ValueError: it is no such text.
    """
    return read_bytes(path, TEXT).decode("utf-8-sig")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: as `read_bytes`.
        ValueError: it is no JSON.
    """
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        OSError: as `read_bytes`.
        ValueError: it is no TOML.
    """
    text = read_text(path).replace("\r\n", "\n")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
