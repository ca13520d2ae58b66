"""Street View House Numbers (Netzer et al., 2011)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from metapl.data.formats import limits
from metapl.data.sources.base import Archive, Dataset, Known, Stored
from metapl.data.sources.pixels import Part, dataset, labels
from metapl.files import storage
from metapl.registry.errors import InputError

NUMBERS = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "single", "double")
"""MATLAB's names for arrays of them; others, such as cells, may hold anything."""

AGAIN = "download it again, as metapl data get svhn does"
"""The remedy where a file is damaged."""


def svhn(place: Path, *, extra: bool = True) -> Dataset:
    """SVHN, cropped: 32×32 colour photographs of digits, 73,257 to train on and 26,032 to test, 531,131 extra.

    The files call the digit 0 class 10; here it is class 0.

    Args:
        place: the folder with `train_32x32.mat`, `test_32x32.mat` and perhaps `extra_32x32.mat`.
        extra: add the extra images, which are easier, to the training pool if their file is there (1.6 GB of memory).

    Raises:
        InputError: a file is missing, incomplete, or not what it claims to be.
    """
    train, test = (_matrices(place / f"{name}_32x32.mat") for name in ("train", "test"))
    more = place / "extra_32x32.mat"
    if extra and more.is_file():
        added = _matrices(more)
        train = Part(np.concatenate([train.x, added.x]), np.concatenate([train.y, added.y]))
    return dataset(train, test, [str(digit) for digit in range(10)], mirror=False)


def _matrices(path: Path) -> Part:
    """Images `[32, 32, 3, examples]` and labels `[examples, 1]` from 1 to 10."""
    from scipy.io import loadmat, whosmat  # noqa: PLC0415 - slow to import, and only this source needs them

    if not path.is_file():
        raise InputError(f"{path} is missing: {AGAIN}")
    try:
        storage.require_regular(path)
        # By the headers, which come first: what the two take, and that they are plain numbers.
        said = {name: (shape, kind) for name, shape, kind in whosmat(path) if name in ("X", "y")}
        if any(kind not in NUMBERS for _, kind in said.values()):
            raise ValueError("X or y is no array of numbers")
        limits.require(
            sum(math.prod(shape) * (1 if kind == "uint8" else 8) for shape, kind in said.values()), str(path)
        )
        held = loadmat(path, variable_names=["X", "y"])
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is no complete MATLAB file ({reason}): {AGAIN}") from None
    x, y = (held.get(name, np.empty(0)) for name in ("X", "y"))
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != (32, 32, 3):
        raise InputError(
            f"{path} has images 'X' as {x.dtype} {list(x.shape)}, not as uint8 [32, 32, 3, images]: {AGAIN}"
        )
    y = labels(y.reshape(-1), range(1, 11), x.shape[3], path, AGAIN)
    return Part(np.ascontiguousarray(x.transpose(3, 2, 0, 1)), (y + 1) % 10)


def _is_svhn(place: Path) -> bool:
    return all((place / f"{name}_32x32.mat").is_file() for name in ("train", "test"))


URL = "http://ufldl.stanford.edu/housenumbers/"
"""Where SVHN is published."""

SVHN = Stored(
    svhn,
    _is_svhn,
    ("svhn", "SVHN"),
    (
        Known("train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
        Known("test_32x32.mat", "md5:eb5a983be6a315427106f1b164d9cef3"),
        Known("extra_32x32.mat", "md5:a93ce644f1a588dc4d68dda5feec44a7"),
    ),
    (
        Archive(f"{URL}train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373", 182_040_794),
        Archive(f"{URL}test_32x32.mat", "md5:eb5a983be6a315427106f1b164d9cef3", 64_275_384),
        Archive(f"{URL}extra_32x32.mat", "md5:a93ce644f1a588dc4d68dda5feec44a7", 1_329_278_602, optional=True),
    ),
)
"""The source `svhn`, with the files that it is known by."""
