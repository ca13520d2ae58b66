"""What a data source returns, and how one that reads files is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.data.augment.base import Augment
from metapl.data.examples import Examples
from metapl.data.form import Form
from metapl.data.notes import Note


class Original(NamedTuple):
    """What a data set was before an encoder made features of it: what a person can look at."""

    form: Form
    x: Examples
    x_test: Examples


class Dataset(NamedTuple):
    """A classification data set. The labels of the training pool are revealed by a `Split` only."""

    x: Examples
    """The training pool."""
    y: Tensor
    """Its class indices, `[examples]`, int64; −1 where nobody knows."""
    x_test: Examples
    y_test: Tensor
    augment: Augment
    form: Form
    validation: Tensor | None = None
    """Positions in the pool of a validation set that came with the data, int64; None where none did."""
    groups: Tensor | None = None
    """Of the pool, `[examples]`: which examples belong together, see `metapl.data.groups`; None where none do."""
    notes: tuple[Note, ...] = ()
    """What the source took the data for, what it left out, and what it warns of."""
    skip_bad: bool = False
    """Whether files that cannot be read are done without."""
    names: tuple[str, ...] = ()
    """Of the examples of the pool, each its own: paths below the folder, rows of the file; none where nobody has
    named them."""
    later: Tensor = torch.zeros(0, dtype=torch.int64)
    """Positions in the pool of the examples whose labels came in files of their own, int64."""
    original: Original | None = None
    """Of features that were made of it; None where the examples are what was read."""

    def name(self, example: int) -> str:
        """What an example of the pool is called, which is its number where it has no name."""
        return self.names[example] if self.names else f"example {example}"

    @property
    def shown(self) -> Original:
        """The examples as they were read, for people to look at."""
        return self.original or Original(self.form, self.x, self.x_test)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.form.classes)


class Known(NamedTuple):
    """A file of a published data set."""

    name: str
    """Its path inside the data set's folder; `.gz` may follow."""
    digest: str
    """`md5:…` or `sha256:…`, in hexadecimal; of what is inside, where the file is compressed by gzip."""


class Archive(NamedTuple):
    """What to download to get a data set's files."""

    url: str
    digest: str
    """`md5:…` or `sha256:…` of the file behind the address, in hexadecimal."""
    size: int
    """Bytes of it."""
    optional: bool = False
    """Whether the data set can do without it."""


class Stored(NamedTuple):
    """A source that reads files."""

    load: Callable[..., Dataset]
    """`load(place, *, options)`, where `place` is a file or a folder that `recognise` accepts."""
    recognise: Callable[[Path], bool]
    """Whether a file or folder holds data of this kind; a glance at names, nothing is read."""
    folders: Sequence[str] = ()
    """What the folder of a published data set is usually called."""
    files: Sequence[Known] = ()
    """Of a published data set, with their checksums."""
    archives: Sequence[Archive] = ()
    """Where it can be had."""
