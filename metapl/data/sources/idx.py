"""Images and labels in idx files: MNIST, Fashion-MNIST, and what else has their layout."""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metapl.data.formats import limits
from metapl.data.sources import fetch
from metapl.data.sources.base import Archive, Dataset, Known, Stored
from metapl.data.sources.pixels import Part, dataset, labels
from metapl.registry.errors import InputError

CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""The classes of Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017)."""

CLOTHES_FILES = (
    Known("train-images-idx3-ubyte", "md5:f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    Known("train-labels-idx1-ubyte", "md5:9018921c3c673c538a1fc5bad174d6f9"),
    Known("t10k-images-idx3-ubyte", "md5:8181f5470baa50b63fa0f6fddb340f0a"),
    Known("t10k-labels-idx1-ubyte", "md5:15d484375f8d13e6eb1aabb0c3f46965"),
)
"""The files of Fashion-MNIST and their checksums."""

MNIST_FILES = (
    Known("train-images-idx3-ubyte", "md5:6bbc9ace898e44ae57da46a324031adb"),
    Known("train-labels-idx1-ubyte", "md5:a25bea736e30d166cdddb491f175f624"),
    Known("t10k-images-idx3-ubyte", "md5:2646ac647ad5339dbf082846283269ea"),
    Known("t10k-labels-idx1-ubyte", "md5:27ae3e4e09519cfbb04c329615203637"),
)
"""The files of MNIST and their checksums."""

AGAIN = "get it again, or give the folder of other files"
"""The remedy where a file is damaged."""


def idx(place: Path) -> Dataset:
    """Grey images in idx files, such as MNIST and Fashion-MNIST: 60,000 images of 28×28 to train on, 10,000 to test.

    The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte`, compressed by gzip or not. The classes are the labels that the training pool has, in
    ascending order, named by their numbers; Fashion-MNIST, known by its folder's name or by the checksum of its labels,
    has names.

    Args:
        place: the folder with the files.

    Raises:
        InputError: a file is missing, incomplete, or not what it claims to be.
    """
    (x, y), (x_test, y_test) = (
        (_read(_path(place, f"{name}-images"), 3), _read(_path(place, f"{name}-labels"), 1))
        for name in ("train", "t10k")
    )
    if x.shape[1:] != x_test.shape[1:]:
        sizes = " and ".join("×".join(map(str, images.shape[1:])) for images in (x, x_test))
        raise InputError(f"{place} has images of {sizes} pixels to train on and to test: {AGAIN}")
    train, test = _path(place, "train-labels"), _path(place, "t10k-labels")
    clothes = "fashionmnist" in _called(place) or fetch.verify(train, CLOTHES_FILES[1].digest, inside=True)
    numbers = range(10) if clothes else np.unique(y).tolist()
    return dataset(
        Part(x[:, None], labels(y, numbers, len(x), train, AGAIN)),
        Part(x_test[:, None], labels(y_test, numbers, len(x_test), test, AGAIN)),
        CLOTHES if clothes else [str(number) for number in numbers],
    )


def _called(place: Path) -> str:
    """The letters of a folder's name, or of the folder around it where it is called `raw`."""
    place = place.resolve()
    return "".join(filter(str.isalpha, (place.parent if place.name == "raw" else place).name.lower()))


def _candidates(place: Path, name: str) -> list[Path]:
    """Files that may be `train-images` and so on; the first is the one that is not compressed."""
    named = re.compile(rf"{name}([.-]idx\d-ubyte)?(\.gz)?")
    return sorted(path for path in place.glob(f"{name}*") if named.fullmatch(path.name) and path.is_file())


def _path(place: Path, name: str) -> Path:
    found = _candidates(place, name)
    if not found:
        raise InputError(f"{place} has no {name} file in the idx format: {AGAIN}")
    return found[0]


def _read(path: Path, dimensions: int) -> np.ndarray:
    """Bytes with a header: two zeros, the type (8 is uint8), the number of dimensions, and each of them in 4 bytes."""
    start = 4 + 4 * dimensions
    try:
        with fetch.open_plain(path) as file:
            head = file.read(start)
            if head[:4] != bytes([0, 0, 8, dimensions]) or len(head) < start:
                raise InputError(f"{path} is no idx file of unsigned bytes in {dimensions} dimensions: {AGAIN}")
            shape = struct.unpack(f">{dimensions}I", head[4:])
            if not isinstance(file, gzip.GzipFile):
                _require_size(path, f"{path.stat().st_size - start:,}", shape)
            size = math.prod(shape)
            limits.require(size, str(path))
            raw = file.read(size + 1)  # one more than there should be, and not all that a small gzip file could hold
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InputError(f"{path} is an incomplete gzip file: {AGAIN}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {AGAIN}") from None
    _require_size(path, "more" if len(raw) > size else f"{len(raw):,}", shape)
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _require_size(path: Path, found: str, shape: Sequence[int]) -> None:
    wanted = f"{math.prod(shape):,}"
    if found != wanted:
        raise InputError(f"{path} has {found} bytes for {'×'.join(map(str, shape))}, which is {wanted}: {AGAIN}")


def _is_idx(place: Path) -> bool:
    parts = [f"{name}-{kind}" for name in ("train", "t10k") for kind in ("images", "labels")]
    return place.is_dir() and any(_candidates(place, name) for name in parts)


def _is_clothes(place: Path) -> bool:
    return _is_idx(place) and "fashionmnist" in _called(place)


def _is_mnist(place: Path) -> bool:
    return _is_idx(place) and _called(place) == "mnist"


CLOTHES_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
"""Where Fashion-MNIST is published."""
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
"""Where MNIST is published."""

FASHION_MNIST = Stored(
    idx,
    _is_clothes,
    ("fashion-mnist", "FashionMNIST", "FashionMNIST/raw", "fashion_mnist"),
    CLOTHES_FILES,
    (
        Archive(f"{CLOTHES_URL}train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880),
        Archive(f"{CLOTHES_URL}train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe", 29_515),
        Archive(f"{CLOTHES_URL}t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79", 4_422_102),
        Archive(f"{CLOTHES_URL}t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310", 5_148),
    ),
)
"""The source `fashion-mnist`, with the files that it is known by."""

MNIST = Stored(
    idx,
    _is_mnist,
    ("mnist", "MNIST", "MNIST/raw"),
    MNIST_FILES,
    (
        Archive(f"{MNIST_URL}train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
        Archive(f"{MNIST_URL}train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432", 28_881),
        Archive(f"{MNIST_URL}t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3", 1_648_877),
        Archive(f"{MNIST_URL}t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c", 4_542),
    ),
)
"""The source `mnist`, with the files that it is known by."""

IDX = Stored(idx, _is_idx)
"""The source `idx`: any files of this layout."""
