"""`.npy` and `.npz` files, as numpy saves them: without pickle, and no larger in memory than is allowed.

Large arrays of numbers that are not packed are mapped: they stay on the disk, and what is asked for is read.
"""

from __future__ import annotations

import math
import os
import reprlib
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np

from metapl.data.formats import limits
from metapl.data.formats.files import shown
from metapl.files import storage
from metapl.registry.errors import InputError

Arrays: TypeAlias = dict[str, np.ndarray]
"""Arrays by name; those that are mapped cannot be written to."""

MAPPED = 2**26
"""Bytes from which an array is mapped: 64 MiB."""

_AT_ONCE = 2**24

_LOCAL = struct.Struct("<26sHH")
"""Of what stands before a file in an archive: its name and more are behind that, as long as it says."""


def slices(x: np.ndarray) -> Iterator[slice]:
    """Some examples at a time, 16 MiB of them or one, so that little is copied at once."""
    step = max(_AT_ONCE * len(x) // max(x.nbytes, 1), 1)
    return (slice(start, start + step) for start in range(0, len(x), step))


def load(place: Path, choose: Callable[[Collection[str]], Mapping[str, str]]) -> Arrays:
    """The arrays of an `.npz` file, or the `.npy` files of a folder, or one `.npy` file as `x`.

    What they take is known from their headers before any is read.

    Args:
        place: the file or folder.
        choose: given the names that there are, the ones wanted, by what they are to be called.

    Raises:
        InputError: a file that cannot be read or holds Python objects, or more than memory is allowed for.
    """
    if place.is_dir():
        files = {file.stem: file for file in place.glob("*.npy")}
        wanted = [files[given] for given in choose(files.keys()).values()]
        limits.require(sum(map(_size, wanted)), shown(place))
        return {name: _whole(files[given]) for name, given in choose(files.keys()).items()}
    with _opened(place) as file:
        if not zipfile.is_zipfile(file):
            return {"x": _whole(place)}
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            held = {name.removesuffix(".npy"): name for name in archive.namelist()}
            named = {name: held[given] for name, given in choose(held.keys()).items()}
            limits.require(sum(_declared_in(archive, one, place) for one in named.values()), shown(place))
            return {name: _member(archive, one, place) for name, one in named.items()}


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A file of an array or of an archive of them; whatever goes wrong with it is bad input."""
    try:
        storage.require_regular(file)
        with file.open("rb") as content:
            yield content
    except InputError:
        raise
    except Exception as error:  # a damaged file can make numpy and zipfile fail in many ways
        raise _unreadable(shown(file), error) from None


def _whole(file: Path) -> np.ndarray:
    with _opened(file) as content:
        if zipfile.is_zipfile(content):
            raise InputError(f"{shown(file)}: an archive of arrays by the name of one: rename it to .npz and give that")
        content.seek(0)
        limits.require(_declared(content, os.fstat(content.fileno()).st_size), shown(file))
        content.seek(0)
        mapped = _mapped(file, content)
        content.seek(0)
        return _read(content) if mapped is None else mapped


def _mapped(file: Path, content: IO[bytes]) -> np.ndarray | None:
    """The array whose header, which has been checked, comes next in a file; None where it is better read."""
    shape, fortran, dtype = HEADERS[np.lib.format.read_magic(content)](content)
    if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize < MAPPED:
        return None
    order: Literal["C", "F"] = "F" if fortran else "C"
    return np.asarray(np.memmap(file, dtype, "r", content.tell(), shape, order))


def _size(file: Path) -> int:
    """The bytes of a file; none where it is not there, which is an error when it is read."""
    return file.stat().st_size if file.is_file() else 0


def _declared(content: IO[bytes], size: int) -> int:
    """The bytes of an array by its header, which must be those that follow it, in a file of this size.

    Raises:
        ValueError: they are not, or the header is none.
    """
    version = np.lib.format.read_magic(content)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = HEADERS[version](content)
    if dtype.hasobject:
        raise ValueError("pickled objects")
    count = math.prod(shape)
    if any(side < 0 for side in shape) or count * dtype.itemsize != size - content.tell():
        raise ValueError(f"{size - content.tell():,} bytes for shape {reprlib.repr(shape)} of {dtype}")
    return max(count * dtype.itemsize, *shape, count, 0)  # of no bytes there can be any number


HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""What reads each version of a header; the third has names of fields, which no numbers have."""


def _read(content: IO[bytes]) -> np.ndarray:
    """An array whose header has been checked.

    Raises:
        ValueError: it is cut short, or its texts are none.
    """
    read = np.lib.format.read_array(content, allow_pickle=False)
    if read.dtype.kind == "U" and read.size and read.dtype.itemsize:
        letters = np.ascontiguousarray(read.astype(read.dtype.newbyteorder("="))).reshape(-1).view(np.uint32)
        if (letters > sys.maxunicode).any() or ((letters >= 0xD800) & (letters < 0xE000)).any():
            raise ValueError("texts with letters that no encoding has")
    return read


def _declared_in(archive: zipfile.ZipFile, name: str, place: Path) -> int:
    try:
        with archive.open(name) as content:
            return _declared(content, archive.getinfo(name).file_size)
    except Exception as error:  # as in _opened
        raise _unreadable(f"{shown(place)}: {name.removesuffix('.npy')}", error) from None


def _member(archive: zipfile.ZipFile, name: str, place: Path) -> np.ndarray:
    try:
        info = archive.getinfo(name)
        if info.compress_type == zipfile.ZIP_STORED and info.file_size >= MAPPED:
            mapped = _mapped_inside(place, info)
            if mapped is not None:
                return mapped
        with archive.open(name) as content:
            return _read(content)
    except Exception as error:  # as in _opened
        raise _unreadable(f"{shown(place)}: {name.removesuffix('.npy')}", error) from None


def _mapped_inside(place: Path, info: zipfile.ZipInfo) -> np.ndarray | None:
    """An array of an archive that is there as it is; None where it is better read.

    Raises:
        ValueError: it has another checksum than the archive says.
    """
    with place.open("rb") as content:
        content.seek(info.header_offset)
        head = content.read(_LOCAL.size)
        _, name, extra = _LOCAL.unpack(head)
        start = content.tell() + name + extra
        content.seek(start)
        found, left = 0, info.file_size
        while left and (piece := content.read(min(left, _AT_ONCE))):
            found, left = zlib.crc32(piece, found), left - len(piece)
        if left or found != info.CRC:
            raise ValueError("its checksum is another one")
        content.seek(start)
        return _mapped(place, content)


def _unreadable(where: str, error: Exception) -> InputError:
    if any(word in str(error) for word in ("pickle", "magic string")):  # numpy's word for what it does not know, too
        return InputError(f"{where}: no plain array, but Python objects or another file: save numbers, or texts as str")
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{where}: cannot be read ({reason}): write it again with numpy.savez")
