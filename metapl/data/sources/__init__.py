"""Data sources: each a function that returns a `Dataset`.

A new one that needs no files is a file here and a line in `EMBEDDED`; one that reads files is a line in `STORED`. The
files are found, checked and fetched here, and read by `metapl.data.formats`.

Floor 3, within `metapl.data`: imports `core`, `files` and `registry`; training and the command line use it.
"""

from collections.abc import Callable

from metapl.data.sources.arrays import arrays, is_arrays
from metapl.data.sources.base import Dataset, Stored
from metapl.data.sources.breast_cancer import breast_cancer
from metapl.data.sources.cifar import CIFAR10, CIFAR100
from metapl.data.sources.digits import digits
from metapl.data.sources.folder import folder, is_folder
from metapl.data.sources.idx import FASHION_MNIST, IDX, MNIST
from metapl.data.sources.listed import is_listed, listed
from metapl.data.sources.moons import moons
from metapl.data.sources.shards import is_shards, shards
from metapl.data.sources.svhn import SVHN
from metapl.data.sources.table import is_table, table

EMBEDDED: dict[str, Callable[..., Dataset]] = {
    "breast-cancer": breast_cancer,
    "digits": digits,
    "moons": moons,
}
"""The sources that need no files."""

STORED: dict[str, Stored] = {
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "svhn": SVHN,
    "fashion-mnist": FASHION_MNIST,
    "mnist": MNIST,
    "idx": IDX,
    "table": Stored(table, is_table),
    "listed": Stored(listed, is_listed),
    "folder": Stored(folder, is_folder),
    "arrays": Stored(arrays, is_arrays),
    "shards": Stored(shards, is_shards),
}
"""The sources that read files, and how their files are recognised."""

SOURCES: dict[str, Callable[..., Dataset]] = {**EMBEDDED, **{name: one.load for name, one in STORED.items()}}
"""All of them by name, for `--data NAME:key=value,…`."""

__all__ = ["EMBEDDED", "SOURCES", "STORED", "Dataset", "Stored", "digits", "moons"]
