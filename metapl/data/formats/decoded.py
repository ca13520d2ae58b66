"""Decoded images on the disk, so that each is decoded once, whatever run asks for it.

A store is one file with an image behind another, as they are in memory, and one with a word for each: whether it is
there, and its checksum. Both are below the folder for what can be made again, see `metapl.files.cache`, under a name
that follows from the files, their sizes and times, and from the shape. Images come in any order and from any number of
processes; one that was half written, or has changed on the disk, has another checksum and is decoded again.

The file is read in pieces and not mapped, since what is mapped counts as memory of the process.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metapl.data.formats import kept
from metapl.data.formats.files import Readable
from metapl.files import cache

LOG = logging.getLogger("metapl")
"""Where it is said that nothing can be stored."""

LEAST = 2**26
"""Bytes of images from which they are stored: 64 MiB. Fewer are decoded in a second or two."""

_WORD = struct.Struct("<Q")
_THERE = 2**32


class Decoded:
    """A store of images of one shape, uint8, by their places in a list of files."""

    def __init__(self, name: str, images: int, words: int, shape: Sequence[int]) -> None:
        self.name = name
        self._images, self._words, self._shape = images, words, tuple(shape)
        self._size = math.prod(shape)

    def __del__(self) -> None:
        """Close the files."""
        for one in (self._images, self._words):
            os.close(one)

    def get(self, place: int) -> Tensor | None:
        """An image `[channels, height, width]`; None if it is not there or damaged."""
        (word,) = _WORD.unpack(os.pread(self._words, _WORD.size, place * _WORD.size))
        if not word:
            return None
        content = bytearray(os.pread(self._images, self._size, place * self._size))
        if len(content) < self._size or zlib.crc32(content) | _THERE != word:
            return None
        return torch.frombuffer(content, dtype=torch.uint8).view(self._shape)

    def put(self, place: int, image: Tensor) -> None:
        """Store an image; where the disk is full, nothing is stored."""
        content = image.contiguous().numpy().tobytes()
        try:
            os.pwrite(self._images, content, place * self._size)
            os.pwrite(self._words, _WORD.pack(zlib.crc32(content) | _THERE), place * _WORD.size)
        except OSError as error:
            LOG.warning("decoded images cannot be stored (%s): they are decoded again next time", error.strerror)


def opened(files: Sequence[Readable], shape: Sequence[int], white: int) -> Decoded | None:
    """The store of some image files; None where they are few, or there is no room for one.

    Args:
        files: the files, in their order.
        shape: channels, height and width of an image.
        white: as of `metapl.data.formats.decode.decode`.
    """
    size = len(files) * math.prod(shape)
    if size < LEAST:
        return None
    try:
        name = kept.key(files, tuple(shape), white)
        path = cache.folder(kept.FOLDER) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() and not _has_room(path.parent, size):
            return None
        return Decoded(name, _file(path, size), _file(path.with_suffix(".done"), len(files) * _WORD.size), shape)
    except OSError as error:
        LOG.warning("decoded images cannot be stored (%s): they are decoded again next time", error.strerror)
        return None


def _has_room(place: Path, size: int) -> bool:
    removed = cache.make_room(place, size)
    if removed is None:
        text = "decoded images would take %.1f GiB in %s: too little room on the disk, or in %s=%g GiB"
        LOG.warning(text, size / 2**30, place, cache.VARIABLE, cache.most() / 2**30)
    elif removed.things:
        text = "%s: removed %.1f GiB that was used longest ago, since %s=%g GiB are allowed, or the disk is full"
        LOG.warning(text, place, removed.size / 2**30, cache.VARIABLE, cache.most() / 2**30)
    return removed is not None


def _file(path: Path, size: int) -> int:
    """A file of a size, holes at first, open for reading and writing."""
    place = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(place, size)
    os.utime(place)  # what is used stays longest
    return place
