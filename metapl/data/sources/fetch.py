"""Files of published data sets: their checksums, downloads that can be interrupted, and archives."""

from __future__ import annotations

import gzip
import hashlib
import urllib.request
import zlib
from collections.abc import Callable
from contextlib import closing
from http.client import PARTIAL_CONTENT, REQUESTED_RANGE_NOT_SATISFIABLE, HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, TypeAlias
from urllib.error import HTTPError

from metapl.files import storage
from metapl.registry.errors import InputError

Progress: TypeAlias = Callable[[int, int | None], object]
"""`progress(done, total)`: bytes so far, and in all where the server says so."""

PIECE = 2**20
"""Bytes that are read at a time."""

TIMEOUT = 30
"""Seconds without a byte after which a connection counts as broken."""

TRIES = 5
"""How often a download is begun again."""

LARGEST = 2**33
"""Bytes of a file of unknown size: more than any data set that is known here has."""

GZIP = b"\x1f\x8b"
"""The first bytes of a gzip file."""

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
"""Names of what `extract` takes apart end so; a `.gz` alone is read as it is."""


def open_plain(path: Path) -> IO[bytes] | gzip.GzipFile:
    """Open a file, or what is inside it if it is compressed by gzip, whatever its name."""
    with path.open("rb") as file:
        compressed = file.read(len(GZIP)) == GZIP
    return gzip.open(path) if compressed else path.open("rb")


def verify(path: Path, digest: str, inside: bool = False) -> bool:
    """Whether a file has this checksum; it is read piece by piece.

    Args:
        path: the file.
        digest: `md5:…` or `sha256:…`, in hexadecimal.
        inside: take the checksum of what is inside, if the file is compressed by gzip; a damaged one has none.

    Raises:
        InputError: the file cannot be read.
    """
    kind, _, wanted = digest.partition(":")
    found = hashlib.new(kind, usedforsecurity=False)
    try:
        with open_plain(path) if inside else path.open("rb") as file:
            while piece := file.read(PIECE):
                found.update(piece)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return False
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a file that you may read") from None
    return found.hexdigest() == wanted.lower()


class _BrokenError(Exception):
    """A connection ended before the file did."""


def download(url: str, target: Path, digest: str, progress: Progress | None = None, most: int = LARGEST) -> None:
    """Get the file behind an address, unless it is there already.

    What arrives is kept in `TARGET.part`, from which the next call goes on if the server can; the file gets its own
    name when it is whole and has its checksum. A connection that breaks is made again while that brings more of the
    file, five times in all.

    Args:
        url: address, http or https.
        target: the file to write; its folder is made.
        digest: its checksum, `md5:…` or `sha256:…`.
        progress: is called with how far it is.
        most: the bytes of the file, if they are known: an answer with more of them is not the file.

    Raises:
        InputError: no connection, an answer that is not the file, a file with another checksum, no place to write.
    """
    if target.is_file() and verify(target, digest):
        if progress:
            progress(_size(target), _size(target))
        return
    part = target.with_name(f"{target.name}.part")
    try:
        resumed = 0 < _size(part) <= most
        if not resumed:
            part.unlink(missing_ok=True)
        _complete(url, part, progress, most)
        if resumed and not verify(part, digest):  # what was there may be of another file
            part.unlink()
            _complete(url, part, progress, most)
        if not verify(part, digest):
            part.unlink()
            raise InputError(f"{url} is not the published file, which has {digest}: get it from another address")
        storage.settle(part, target)
    except OSError as error:  # of the file system: those of the network have become others
        reason = error.strerror or error
        raise InputError(f"{target} cannot be written ({reason}): name a folder that you may write") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _complete(url: str, part: Path, progress: Progress | None, most: int) -> None:
    """Fetch until nothing is missing."""
    for attempt in range(1, TRIES + 1):
        before = _size(part)
        try:
            _fetch(url, part, progress, most)
            break
        except _BrokenError as error:
            if attempt == TRIES or _size(part) <= before:
                raise InputError(f"{url}: {error} after {_size(part):,} bytes: run it again") from None


def _fetch(url: str, part: Path, progress: Progress | None, most: int) -> None:
    """One request for what is missing of `part`."""
    start = _size(part)
    answer = _request(url, start)
    if answer is None:
        return
    with closing(answer):
        goes_on = answer.status == PARTIAL_CONTENT
        done = start if goes_on else 0
        length = answer.headers.get("Content-Length", "").strip()
        total = done + int(length) if length.isdecimal() and len(length) < 20 else None
        if total is not None and total > most:
            raise InputError(_other(url, most))
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab" if goes_on else "wb") as file:
            while piece := _receive(answer):
                file.write(piece)
                done += len(piece)
                if done > most:  # a server need not say how much it sends, nor ever end
                    break
                if progress:
                    progress(done, total)
    if done > most:
        part.unlink()
        raise InputError(_other(url, most))
    if total is not None and done < total:
        raise _BrokenError("the connection ended")


def _other(url: str, most: int) -> str:
    return f"{url} sends more than the {most:,} bytes of the published file: get it from another address"


def _request(url: str, start: int) -> HTTPResponse | None:
    """The answer, from byte `start` on if the server can; None if it says that there is nothing from there on."""
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url} is no address to download from: give one that starts with https://")
    headers = {"User-Agent": "metapl", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if start and error.code == REQUESTED_RANGE_NOT_SATISFIABLE:
            return None
        raise InputError(f"{url} cannot be had ({error.code} {error.reason}): give another address") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise InputError(f"{url} cannot be reached ({reason}): see to the connection or give another address") from None


def _receive(answer: HTTPResponse) -> bytes:
    """What has arrived, at most `PIECE`; nothing at the end."""
    try:
        return answer.read1(PIECE)
    except (OSError, HTTPException) as error:
        raise _BrokenError(f"the connection broke ({' '.join(str(error).split())})") from None
