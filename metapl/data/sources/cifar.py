"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32×32 pixels (Krizhevsky, 2009)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metapl.data.formats import limits, safe_pickle
from metapl.data.sources.base import Archive, Dataset, Known, Stored
from metapl.data.sources.pixels import Moments, Part, dataset, labels
from metapl.files import storage
from metapl.registry.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Of CIFAR-10."""

RELEASED: Moments = ([0.4914, 0.482158, 0.4465309], [0.247032, 0.243485, 0.26159])
"""What the released code of Meta Pseudo Labels standardises CIFAR-10 by."""

PIXELS = 3 * 32 * 32
"""Bytes of one image."""

AGAIN = "download it again, as metapl data get {} does"
"""The remedy where a file is damaged."""


def cifar10(place: Path) -> Dataset:
    """CIFAR-10: 32×32 colour photographs of 10 kinds of animals and vehicles, 50,000 to train on and 10,000 to test.

    Reads the Python version (`data_batch_1` … `data_batch_5`, `test_batch`) or the binary version (the same names
    with `.bin`), which hold the same images in the same order; the first where both are there. The pickles of the
    Python version cannot run anything, see `metapl.data.formats.safe_pickle`.

    Args:
        place: the folder with the files.

    Raises:
        InputError: a file is missing, incomplete, or not what it claims to be.
    """
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    if any((place / name).is_file() for name in names):
        parts = {place / name: _pickled(place / name, "labels", 10, "cifar10") for name in names}
    else:
        paths = [place / f"{name}.bin" for name in names]
        parts = {path: _records(path, 0, 1, 10, "cifar10") for path in paths}
    *train, test = parts.values()
    for path, part in list(parts.items())[:-1]:
        if len(part.y) != len(train[0].y):
            raise InputError(
                f"{path} has {len(part.y)} images and the first batch has {len(train[0].y)}, so one of them is "
                f"incomplete: {AGAIN.format('cifar10')}"
            )
    pool = Part(np.concatenate([part.x for part in train]), np.concatenate([part.y for part in train]))
    return dataset(pool, test, CLASSES, RELEASED)


def cifar100(place: Path, *, coarse: bool = False) -> Dataset:
    """CIFAR-100: 32×32 colour photographs of 100 kinds of things, 50,000 to train on and 10,000 to test.

    Reads the Python version (`train`, `test` and `meta`) or the binary version (`train.bin`, `test.bin`,
    `fine_label_names.txt` and `coarse_label_names.txt`).

    Args:
        place: the folder with the files.
        coarse: tell apart the 20 groups of 5 classes in place of the 100 classes.

    Raises:
        InputError: a file is missing, incomplete, or not what it claims to be.
    """
    kind, count = ("coarse", 20) if coarse else ("fine", 100)
    if (place / "train").is_file():
        classes = _meta(place / "meta", f"{kind}_label_names")
        train, test = (_pickled(place / name, f"{kind}_labels", count, "cifar100") for name in ("train", "test"))
    else:
        path = place / f"{kind}_label_names.txt"
        classes = _read(path, "cifar100").decode("latin1").split()
        column = 0 if coarse else 1
        train, test = (_records(place / f"{name}.bin", column, 2, count, "cifar100") for name in ("train", "test"))
    if len(set(classes)) != count:
        raise InputError(f"{place} names {len(set(classes))} {kind} classes, not {count}: {AGAIN.format('cifar100')}")
    return dataset(train, test, classes)


def _read(path: Path, name: str) -> bytes:
    try:
        return storage.read_bytes(path, limits.most())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {AGAIN.format(name)}") from None


def _unpickled(path: Path, key: str, name: str) -> dict[str, Any]:
    """The entries of a batch by name; a batch that Python 3 has written once more may have names of bytes."""
    if not path.is_file():
        raise InputError(f"{path} is missing: {AGAIN.format(name)}")
    held = safe_pickle.load(path)
    entries = {}
    if isinstance(held, dict):
        entries = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in held.items()}
    if key not in entries:
        raise InputError(f"{path} is a pickle without {key!r}, so it is no file of {name}: {AGAIN.format(name)}")
    return entries


def _pickled(path: Path, key: str, classes: int, name: str) -> Part:
    entries = _unpickled(path, key, name)
    data, remedy = entries.get("data"), AGAIN.format(name)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != PIXELS:
        shape = f"{data.dtype} {list(data.shape)}" if isinstance(data, np.ndarray) else type(data).__name__
        raise InputError(f"{path} has images as {shape}, not as uint8 [images, {PIXELS}]: {remedy}")
    y = entries[key]
    if isinstance(y, list):  # of whole numbers; lists in lists, the same one over and over, could be any number of them
        y = np.asarray(y) if all(type(one) is int and abs(one) < 2**31 for one in y) else None
    if not isinstance(y, np.ndarray):
        raise InputError(f"{path} has labels that are no list of whole numbers: {remedy}")
    return Part(data.reshape(-1, 3, 32, 32), labels(y, range(classes), len(data), path, remedy))


def _meta(path: Path, key: str) -> Sequence[str]:
    names = _unpickled(path, key, "cifar100")[key]
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise InputError(f"{path} has {key!r} that is no list of names: {AGAIN.format('cifar100')}")
    return [name.decode("latin1") if isinstance(name, bytes) else name for name in names]


def _records(path: Path, column: int, columns: int, classes: int, name: str) -> Part:
    """Records of `columns` labels, a byte each, and 3,072 grey levels; the label is in `column`."""
    raw, remedy = _read(path, name), AGAIN.format(name)
    if len(raw) % (columns + PIXELS):
        raise InputError(
            f"{path} has {len(raw):,} bytes, which is no whole number of records of {columns + PIXELS:,} bytes, so it "
            f"is incomplete: {remedy}"
        )
    rows = np.frombuffer(raw, np.uint8).reshape(-1, columns + PIXELS)
    x = rows[:, columns:].reshape(-1, 3, 32, 32)
    return Part(x, labels(rows[:, column], range(classes), len(rows), path, remedy))


def _is_cifar10(place: Path) -> bool:
    return any((place / f"{name}{end}").is_file() for name in ("data_batch_1", "test_batch") for end in ("", ".bin"))


def _is_cifar100(place: Path) -> bool:
    return any(all((place / f"{name}{end}").is_file() for name in ("train", "test")) for end in ("", ".bin"))


CIFAR10 = Stored(
    cifar10,
    _is_cifar10,
    ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar10", "cifar-10"),
    (
        Known("data_batch_1", "md5:c99cafc152244af753f735de768cd75f"),
        Known("data_batch_2", "md5:d4bba439e000b95fd0a9bffe97cbabec"),
        Known("data_batch_3", "md5:54ebc095f3ab1f0389bbae665268c751"),
        Known("data_batch_4", "md5:634d18415352ddfa80567beed471001a"),
        Known("data_batch_5", "md5:482c414d41f54cd18b22e5b47cb7c3cb"),
        Known("test_batch", "md5:40351d587109b95175f43aff81a1287e"),
        Known("data_batch_1.bin", "md5:5dd7e06a14cb22eb9f671a540d1b7c25"),
        Known("data_batch_2.bin", "md5:5ea93a67294ea407fff1d09f752e9692"),
        Known("data_batch_3.bin", "md5:942cd6a4bcdd0dd3c604fbe906cb4421"),
        Known("data_batch_4.bin", "md5:ae636b3ba5c66a11e91e8cb52e771fcb"),
        Known("data_batch_5.bin", "md5:53f37980c15c3d472c316c40844f3f0d"),
        Known("test_batch.bin", "md5:803d5f7f4d78ea53de84dbe85f74fb6d"),
    ),
    (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "md5:c58f30108f718f92721af3b95e74349a",
            170_498_071,
        ),
    ),
)
"""The source `cifar10`, with the files that it is known by."""

CIFAR100 = Stored(
    cifar100,
    _is_cifar100,
    ("cifar-100-python", "cifar-100-binary", "cifar100", "cifar-100"),
    (
        Known("train", "md5:16019d7e3df5f24257cddd939b257f8d"),
        Known("test", "md5:f0ef6b0ae62326f3e7ffdfab6717acfc"),
        Known("meta", "md5:7973b15100ade9c7d40fb424638fde48"),
    ),
    (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "md5:eb9058c3a382ffc7106e4002c42a8d85",
            169_001_437,
        ),
    ),
)
"""The source `cifar100`, with the files that it is known by."""
