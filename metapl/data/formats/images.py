"""One's own images: files, shards and arrays as examples, in memory where they fit and read when asked for where not.

What they become is in `metapl.data.formats.decode`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeAlias

import torch
from torch import Tensor

from metapl.data import progress
from metapl.data.examples import Examples, Inputs, Problems, join
from metapl.data.form import Form
from metapl.data.formats import archives, arrays, decoded, files, grey, shards
from metapl.data.formats.damaged import naming_all
from metapl.data.formats.decode import ENDINGS, WHITE, decode, fitted, header
from metapl.data.formats.decoded import Decoded
from metapl.data.formats.files import Readable, shown
from metapl.registry.errors import InputError

IN_MEMORY = 2**30
"""Bytes up to which images are decoded once and kept."""

SAMPLE = 256
"""Images that are looked at for the shape of all."""

SMALL = 96
"""Pixels up to which images of one size stay as they are."""

_CHUNK = 256

Shape: TypeAlias = tuple[int, int, int]
"""Channels, height and width."""


def find(folder: Path) -> list[Path]:
    """The image files below a folder, at any depth, in the order of their relative paths; see `files.find`."""
    return files.find(folder, ENDINGS)


class Files:
    """Images that are decoded when asked for, by as many threads as there are processors and some more."""

    def __init__(
        self,
        files: Sequence[Readable],
        shape: Sequence[int],
        white: int = WHITE,
        unread: dict[int, str] | None = None,
        first: int = 0,
        store: Decoded | None = None,
    ) -> None:
        self._files, self._white, self._unread, self._first = files, white, unread, first
        self._store = store
        self.shape, self.dtype = torch.Size([len(files), *shape]), torch.uint8

    def __len__(self) -> int:
        """How many there are."""
        return len(self._files)

    @property
    def kept(self) -> str:
        """The name of the store on the disk, empty where there is none; see `metapl.data.formats.decoded`."""
        return self._store.name if self._store else ""

    def _decoded(self, place: int) -> Tensor:
        found = self._store.get(place) if self._store else None
        if found is not None:
            return found
        try:
            image = decode(self._files[place], self.shape[1:], self._white)
        except InputError as error:
            if self._unread is None:
                raise
            self._unread[self._first + place] = str(error).rpartition(": ")[0]
            return torch.zeros(self.shape[1:], dtype=self.dtype)
        if self._store:
            self._store.put(place, image)
        return image

    def __getitem__(self, index: Tensor) -> Tensor:
        """`[batch, channels, height, width]`, uint8.

        Raises:
            InputError: a file that is no image.
        """
        found = torch.empty(len(index), *self.shape[1:], dtype=self.dtype)
        # The threads live for a batch: that costs a millisecond, and nothing must be closed or survive a fork.
        with ThreadPoolExecutor() as pool:
            for place, image in enumerate(pool.map(self._decoded, index.tolist())):
                found[place] = image
        return found


def load(
    files: Sequence[Readable],
    shape: Sequence[int],
    white: int = WHITE,
    unread: dict[int, str] | None = None,
    first: int = 0,
    room: int | None = None,
) -> Examples:
    """Image files as uint8 levels `[images, channels, height, width]`: a tensor where there is room, else `Files`.

    Many are stored as they are decoded, see `metapl.data.formats.decoded`, unless some may be unread: these are seen
    once.

    Args:
        files: the files.
        shape: of an image.
        white: as of `decode`.
        unread: where it is noted which files are no images, and are black; without, they are an error.
        first: the position of the first file there.
        room: bytes of the tensor at most; 1 GiB by default.

    Raises:
        InputError: a file that is no image. Of `Files`, when it is asked for.
    """
    store = decoded.opened(files, shape, white) if unread is None else None
    x = Files(files, shape, white, unread, first, store)
    if math.prod(x.shape) > (IN_MEMORY if room is None else room):
        return x
    kept = torch.empty(x.shape, dtype=x.dtype)
    with naming_all(files):
        for index in progress.through(torch.arange(len(x)).split(_CHUNK), len(x), "reading images", len):
            kept[index] = x[index]
    return kept


def evenly(count: int, most: int) -> Tensor:
    """All indices 0 … count − 1, or `most` of them, evenly spaced from the first on."""
    return torch.arange(min(count, most)) * count // min(count, most)


def guess_shape(files: Sequence[Readable]) -> Shape:
    """The shape that fits some images, by up to 256 of them, evenly spaced.

    One channel if all of them are grey, else three. Where all are of one size, of at most 96 pixels either way, that
    size; else a square of the median shorter side, rounded down to a multiple of 32, at least 32 and at most 224.

    Raises:
        InputError: one of them is no image.
    """
    with ThreadPoolExecutor() as pool, naming_all(files):
        headers = list(pool.map(header, [files[place] for place in evenly(len(files), SAMPLE).tolist()]))
    channels = 1 if all(one.grey for one in headers) else 3
    height, width = headers[0][:2]
    if max(height, width) <= SMALL and all(one[:2] == (height, width) for one in headers):
        return channels, height, width
    side = int(median(min(one[:2]) for one in headers)) // 32 * 32
    side = min(max(side, 32), 224)
    return channels, side, side


def read(form: Form, places: Sequence[Path], problems: Problems | None = None) -> Inputs:
    """Fresh images in the stored form of a trained run; see `gather`, whose shape is that of the form."""
    scale = grey.Scale(*form.details["scale"]) if "scale" in form.details else None
    return gather(places, form.shape, form.details.get("white", WHITE), scale, problems)


def gather(
    places: Sequence[Path],
    shape: Sequence[int],
    white: int = WHITE,
    scale: grey.Scale | None = None,
    problems: Problems | None = None,
    room: int | None = None,
) -> Inputs:
    """Images from image files, shards, `.npy` and `.npz` files of images, and folders of images and shards.

    They are in the order of the places; within a folder images come first, then shards. The name of each is the path of
    its file; of a member of a shard the path of the shard with the path in it; of an array the path with the number of
    the image in brackets, as in `x.npy[0]`.

    Args:
        places: files and folders.
        shape: of an image; those of another size are fitted, see `decode`.
        white: as of `decode`.
        scale: black and white in arrays of other dtypes than uint8, which are refused without.
        problems: where it is noted which files are no images; without, they are an error.
        room: as of `load`, for each place.

    Raises:
        InputError: a place that is not there or has no images, and what `decode` and `shards.read` refuse.
    """
    parts: list[Inputs] = []
    for place in places:
        load_all = partial(load, shape=shape, white=white, unread=problems and problems.unread, room=room)
        parts.append(_gathered(place, shape, scale, partial(load_all, first=sum(len(part.x) for part in parts))))
    return Inputs([name for part in parts for name in part.names], join(*(part.x for part in parts)))


def _gathered(
    place: Path, shape: Sequence[int], scale: grey.Scale | None, load_all: Callable[[Sequence[Readable]], Examples]
) -> Inputs:
    if place.suffix.lower() in arrays.ENDINGS and place.is_file():
        x = fitted(arrays.images(place, scale), shape)
        return Inputs([f"{place}[{number}]" for number in range(len(x))], x)
    folder = archives.opened(place)
    found = _listed(folder)
    # What was packed has the name of its archive, as members of shards have.
    names = [str(one) if folder == place else f"{place}/{Path(str(one)).relative_to(folder)}" for one in found]
    return Inputs(names, load_all(found))


def _listed(place: Path) -> Sequence[Readable]:
    if not place.exists():
        raise InputError(f"{shown(place)}: no such file or folder: correct the path")
    if place.is_file():
        is_shard = place.name.lower().endswith((".tar", *shards.PACKED))
        return shards.read([place]) if is_shard else [place]
    images = find(place)
    # Compressed shards, which are refused, are nobody's concern beside images: they may be what these came in.
    archives = files.find(place, (".tar",)) if images else shards.find(place)
    found: list[Readable] = [*images, *shards.read(archives)]
    if not found:
        raise InputError(
            f"{shown(place)}: no images and no shards below it: name a folder with {' '.join(ENDINGS)} files"
        )
    return found
