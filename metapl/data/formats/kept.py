"""What looking through many files has found, kept on the disk, so that they are looked through once.

It is one small JSON file with its own checksum for each thing found, beside the decoded images, under a name that
follows from the files, their sizes and times, see `key`. A file that is missing or damaged is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from metapl.data.formats.files import Readable
from metapl.files import cache, storage
from metapl.registry.errors import InputError

LOG = logging.getLogger("metapl")
"""Where it is said that nothing can be kept."""

FOLDER = "decoded"
"""The kind of what is kept, see `metapl.files.cache.folder`."""


def key(files: Sequence[Readable], *about: object) -> str:
    """What tells some files, in their order, from all others, and from themselves when one has changed.

    Args:
        files: paths, or members of archives, of which their archive counts.
        about: what else the thing depends on; `repr` tells it apart.

    Raises:
        OSError: a file is gone or may not be looked at.
    """
    found = hashlib.sha256(repr(about).encode())
    for file in files:
        found.update(_stamp(file))
    return found.hexdigest()[:32]


def _stamp(file: Readable) -> bytes:
    shard = getattr(file, "shard", None)  # of a member of an archive
    where = file if isinstance(file, Path) else shard or Path(str(file))
    state = os.stat(where)
    known = os.path.abspath(str(file)), state.st_size, state.st_mtime_ns, getattr(file, "offset", 0)
    return repr(known).encode(errors="surrogateescape")


def once(name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, which JSON can hold; it is asked only where nothing is kept under the name, see `key`."""
    path = cache.folder(FOLDER) / f"{name}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        read = storage.read_json(path)
        if read["crc32"] == _checksum(read["found"]):
            os.utime(path)
            return read["found"]
    found = make()
    try:
        storage.write_text(path, json.dumps({"crc32": _checksum(found), "found": found}))
    except InputError as error:
        LOG.warning("%s; what was found is looked for again next time", error)
    return found


def _checksum(found: Any) -> int:
    return zlib.crc32(json.dumps(found).encode())
