"""Images in tar archives in the layout of webdataset: `KEY.jpg`, with its class index in `KEY.cls`.

Only the headers are read in advance. After that any image is read from its place in the archive, in any order, so that
a batch is a function of the step number here as everywhere, and nothing is unpacked.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from metapl.data.formats import files
from metapl.data.formats.decode import ENDINGS
from metapl.data.formats.files import shown
from metapl.files import storage
from metapl.registry.errors import InputError

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""Endings of archives that must be unpacked to `.tar` first: a compressed one can only be read from its beginning."""

_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


class Member(NamedTuple):
    """An image in a shard, which is read as a file is; see `metapl.data.formats.images.Files`."""

    shard: Path
    name: str
    """Its path in the archive."""
    offset: int
    """Where its bytes begin in the archive."""
    size: int
    """How many they are."""
    label: int = -1
    """Its class index, −1 where the archive has none."""

    def read_bytes(self) -> bytes:
        """The image file. Several threads may read at once: each opens the archive for itself."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def __str__(self) -> str:
        """The path of the archive, then the path in it."""
        return f"{self.shard}/{self.name}"


def find(place: Path) -> list[Path]:
    """A shard, or the shards below a folder in the order of their relative paths.

    Compressed ones are found only where there are no others, for `read` to refuse them.
    """
    return [place] if place.is_file() else files.find(place, (".tar",)) or files.find(place, PACKED)


def read(shards: Iterable[Path]) -> list[Member]:
    """The images of some shards, one shard after another, in the order of each archive.

    The key of a member ends at the first dot of its name, as webdataset has it: `a/7.seg.png` is not an image, but
    something else about the image `a/7.jpg`. That, `KEY.json` and whatever else belongs to a key is skipped, and so are
    names with a leading dot.

    The index is made anew each time: 30 µs for a member, and a small read of the disk for each. It takes about 230
    bytes of memory an image.

    Raises:
        InputError: an archive that is compressed, cut short or damaged, that has no images, or whose image has no key
            of its own, or a `.cls` that holds no class index.
    """
    with ThreadPoolExecutor() as pool:
        return [member for members in pool.map(_members, shards) for member in members]


def _members(shard: Path) -> list[Member]:
    images, labels, doubtful = [], {}, {}
    for header in _headers(shard):
        key, ending = _key(header.name)
        member = Member(shard, header.name, header.offset_data, header.size)
        if ending in ENDINGS:
            images.append((key, member))
        elif ending == ".cls":
            labels[key] = _label(member)
        elif ending.endswith(ENDINGS):
            doubtful[key] = member
    for key in doubtful.keys() - {key for key, _ in images}:
        raise InputError(f"{shown(doubtful[key])}: a name ends at its first dot in a shard: leave the others out of it")
    if not images:
        raise InputError(f"{shown(shard)}: no images in it: name them KEY.jpg, or what kind they are of")
    return [member._replace(label=labels.get(key, -1)) for key, member in images]


def _key(name: str) -> tuple[str, str]:
    """What the members of an example share, and the ending of this one."""
    folder, slash, last = name.rpartition("/")
    stem, dot, ending = last.partition(".")
    return folder + slash + stem, (dot + ending).lower() if stem else ""


def _headers(shard: Path) -> list[tarfile.TarInfo]:
    try:
        storage.require_regular(shard)
        with shard.open("rb") as file:
            if file.read(8).startswith(_MAGIC):
                raise InputError(f"{shown(shard)}: a compressed archive cannot be read at random: unpack it to a .tar")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                found = [header for header in archive if header.isreg()]
                if any(header.issparse() for header in found):  # whose bytes are not in one piece
                    raise tarfile.ReadError("it has sparse files")
            # tarfile takes a damaged header, or the end of the file, for the end of the archive, which is zeros.
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it has no end")
            return found
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{shown(shard)}: cannot be read ({error.strerror}): allow it or remove it") from None
    except Exception as error:  # beside its own errors, tarfile has many of numbers and texts in damaged headers
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{shown(shard)}: damaged or cut short ({reason}): fetch or write it again") from None


def _label(member: Member) -> int:
    text = member.read_bytes().decode(errors="replace").strip()
    if not text.isdecimal() or len(text) > 9:
        raise InputError(f"{shown(member)}: {text[:20]!r} is no class index: write 0, 1, 2, …")
    return int(text)
