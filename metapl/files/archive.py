"""Archives of strangers, taken apart: no path that leads out, no link, no device, no more than is allowed."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from metapl.registry.errors import InputError


class _Member(NamedTuple):
    """A file or a folder in an archive."""

    name: str
    size: int
    plain: bool
    """Whether it is a file or a folder, and not a link or a device."""
    content: Callable[[], IO[bytes] | None]
    """What it holds; None for a folder."""


def extract(
    archive: Path, folder: Path, most: int | None = None, wanted: Callable[[str], bool] = lambda _: True
) -> None:
    """Take apart a tar, tar.gz or zip file, whose members must all be files and folders inside of `folder`.

    All names and sizes are looked at before anything is written. Files get the modes of new files, whatever theirs are.

    Args:
        archive: the file.
        folder: where to.
        most: bytes that the files may have in all; any number if it is not given.
        wanted: which members are written, by their names.

    Raises:
        InputError: a damaged archive, a link or a device in it, a path that leads out, more bytes than `most`, or no
            place to write.
    """
    try:
        with _opened(archive) as members:
            found, size = [], 0
            for member in members:
                _require_harmless(archive, member)
                found.append(member)
                size += member.size
                if most is not None and size > most:
                    raise InputError(f"{archive} holds more than {most:,} bytes: unpack it yourself, if you trust it")
            for member in found:
                if wanted(member.name):
                    _write(member, folder / member.name.replace("\\", "/"))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, gzip.BadGzipFile, RuntimeError) as error:
        # tarfile lists what each kind of compression says, of which the last is the plain file.
        reason = str(error).strip().splitlines()[-1].removeprefix("- ") if str(error).strip() else "it is cut"
        raise InputError(f"{archive} is no complete tar or zip file ({reason}): get it again") from None
    except OSError as error:
        raise InputError(f"{archive} cannot be extracted into {folder} ({error.strerror}): name another") from None


@contextmanager
def _opened(archive: Path) -> Iterator[Iterator[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield (_of_zip(zipped, info) for info in zipped.infolist())
        return
    with tarfile.open(archive) as tarred:
        yield (_of_tar(tarred, info) for info in tarred)


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = info.external_attr >> 28  # the upper bits of the mode, where the archive is from Unix: 10 is a link
    return _Member(info.filename, info.file_size, kind != 10, lambda: None if info.is_dir() else archive.open(info))


def _of_tar(tarred: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    return _Member(info.name, info.size, info.isreg() or info.isdir(), lambda: tarred.extractfile(info))


def _require_harmless(archive: Path, member: _Member) -> None:
    if not member.plain:
        raise InputError(f"{archive} has {member.name!r}, neither file nor folder: get or pack it again without")
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in member.name:
        raise InputError(f"{archive} has {member.name!r}, which leads out of the folder: get or pack it again without")


def _write(member: _Member, path: Path) -> None:
    """Only what a file holds: without the filters of Python 3.11.4, `extractall` would take over its mode and owner."""
    content = member.content()
    (path.parent if content else path).mkdir(parents=True, exist_ok=True)
    if content:
        with content, path.open("wb") as file:
            shutil.copyfileobj(content, file)
