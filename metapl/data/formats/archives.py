"""One's own images in a zip or tar file, as the folder that was packed.

What is in it, as far as it is read here, is unpacked once, below the folder for what can be made again; see
`metapl.files.cache`. A tar file in the layout of webdataset is left as it is, for `metapl.data.formats.shards`.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path, PurePosixPath

from metapl.data.formats.decode import ENDINGS
from metapl.data.formats.files import shown, subfolders
from metapl.data.formats.table_file import TEXTS
from metapl.files import archive, cache
from metapl.registry.errors import InputError

PACKED = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar")
"""Of the names of archives."""

LISTS = (*TEXTS, ".txt")
"""Of the names of files that may have labels."""

TIMES = 20
"""How many times its own size an archive may hold, and 1 GiB more: pictures are packed already."""


def is_packed(place: Path) -> bool:
    """Whether a path is an archive that `opened` unpacks."""
    if not (place.name.lower().endswith(PACKED) and place.is_file()):
        return False
    return place.suffix.lower() == ".zip" or not _is_shard(place)


def _is_shard(place: Path) -> bool:
    """Whether a tar file has labels as webdataset has them, or, not being compressed, its images in one folder."""
    with suppress(Exception), tarfile.open(place) as found:  # what is wrong with it `shards` will say
        names = [PurePosixPath(one.name) for one in found if one.isreg()]
        folders = {name.parent for name in names if name.suffix.lower() in ENDINGS}
        return any(name.suffix == ".cls" for name in names) or (place.suffix.lower() == ".tar" and len(folders) < 2)
    return True


def opened(place: Path) -> Path:
    """The folder that was packed; any other path as it is.

    Folders that hold one folder and nothing else are passed through. The archive is known by its path, size and time.

    Raises:
        InputError: what `metapl.files.archive.extract` refuses, or an archive without images.
    """
    if not is_packed(place):
        return place
    state = place.stat()
    known = f"{place.resolve()} {state.st_size} {state.st_mtime_ns}"
    target = cache.folder("unpacked") / hashlib.sha256(known.encode(errors="surrogateescape")).hexdigest()[:32]
    if not target.is_dir():
        _unpack(place, target, TIMES * state.st_size + 2**30)
    return _inside(target)


def _unpack(place: Path, target: Path, most: int) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            whole = Path(folder) / "whole"
            whole.mkdir()
            archive.extract(place, whole, most, _is_read)
            if not any(one.is_file() for one in whole.rglob("*")):
                raise InputError(f"{shown(place)}: no images in it: pack the folder that has them")
            if not target.is_dir():  # another process may have been faster
                shutil.move(whole, target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror}): make room, or unpack {place}") from None


def _is_read(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not hidden and path.name.lower().endswith((*ENDINGS, *LISTS))


def _inside(folder: Path) -> Path:
    inner = subfolders(folder)
    alone = len(inner) == 1 and sum(1 for _ in folder.iterdir()) == 1
    return _inside(inner[0]) if alone and subfolders(inner[0]) else inner[0] if alone and _flat(inner[0]) else folder


def _flat(folder: Path) -> bool:
    """Whether a folder has images and a file that may have their labels."""
    names = [one.name.lower() for one in folder.iterdir()]
    return any(name.endswith(ENDINGS) for name in names) and any(name.endswith(LISTS) for name in names)
