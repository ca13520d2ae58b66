"""Labelled image files: what tells copies and groups of them, before any is decoded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.data import groups as together
from metapl.data import progress
from metapl.data.formats import kept
from metapl.data.formats.decode import ENDINGS, HEIC
from metapl.data.formats.files import Readable, others
from metapl.data.notes import Note, some
from metapl.data.sources import copies
from metapl.registry.errors import InputError

LEAST = 2**26
"""Bytes of files from which it is kept what was found in them, see `metapl.data.formats.kept`."""

READ = 2**31
"""Bytes of files that are read to find copies; of more, nobody looks for any."""


class Labelled(NamedTuple):
    """Image files and their class indices `[files]`, −1 where nobody knows."""

    files: Sequence[Readable]
    y: Tensor


def no_images(places: Iterable[Path], known: tuple[str, ...] = ()) -> list[Note]:
    """What is to be said of files below some folders whose names end otherwise than those of images.

    Args:
        places: the folders.
        known: endings of files that are read as something else.
    """
    counts: Counter[str] = sum((others(place, (*ENDINGS, ".tar", *known)) for place in places), Counter())
    if not counts:
        return []
    listed = some([f"{count:,} {ending}" for ending, count in counts.most_common()], 6)
    heic = " (.heic: pip install 'metapl[heic]')" if any(ending in HEIC for ending in counts) else ""
    return [Note("left out", f"files that are no images by the endings of their names: {listed}{heic}")]


class Wanted(NamedTuple):
    """What the sources of image files have as options."""

    size: int
    channels: int
    test: float
    unlabelled: Sequence[Path]
    white: int = 0
    """The level of white in files of 16 bits; 0 for a guess."""
    copies: str = "auto"
    """One of `metapl.data.sources.copies.WAYS`."""
    group: str = ""
    """A regular expression: files for which it finds the same belong together."""
    skip_bad: bool = False
    """Whether damaged files are left out, rather than an error."""
    root: Path | None = None
    """The folder below which files are named by their paths."""

    def named(self, files: Iterable[Readable]) -> tuple[str, ...]:
        """What files are called."""
        return tuple(self._named(file) for file in files)

    def _named(self, file: Readable) -> str:
        if self.root is not None and isinstance(file, Path) and file.is_relative_to(self.root):
            return file.relative_to(self.root).as_posix()
        return str(file)


class Apart(NamedTuple):
    """Files with a test part."""

    train: Labelled
    test: Labelled
    groups: Tensor | None
    """Of the files to train on; None where none belong together."""
    notes: list[Note]


def apart(train: Labelled, test: Labelled | None, validation: Labelled | None, wanted: Wanted) -> Apart:
    """Files with a test part, see `metapl.data.sources.copies.apart`. Copies are files of the same bytes.

    Raises:
        InputError: options that are none, groups that no file is in, and what `hold_out` refuses.
    """
    copies.require_way(wanted.copies)
    others = [file for one in (test, validation) if one is not None for file in one.files]
    every = [*train.files, *others]
    found = [None] * len(every) if wanted.copies == "keep" else digests(every)
    unread = [] if found else [Note("copies", "nobody has looked for any among so many files")]
    known = found or [None] * len(every)
    marks = copies.Marks(train.files, known[: len(train.files)], _groups(train.files, wanted.group))
    against = None if test is None else known[len(train.files) :]
    settled = copies.apart(train.y, marks, against, wanted.test, wanted.copies)
    held_out = test or _some(train, settled.test)
    return Apart(_some(train, settled.train), held_out, settled.groups, [*unread, *settled.notes])


def _some(labelled: Labelled, index: Tensor) -> Labelled:
    return Labelled([labelled.files[place] for place in index.tolist()], labelled.y[index])


def digests(files: Sequence[Readable]) -> list[bytes | None] | None:
    """What tells files apart, None for those that their size tells apart already; nothing if `READ` is too little."""
    try:
        sizes = [_size(file) for file in files]
    except OSError:  # of a file that is gone or may not be read, which is refused when it is decoded
        return None
    often = Counter(sizes)
    doubtful = [place for place, size in enumerate(sizes) if often[size] > 1]
    if sum(sizes[place] for place in doubtful) > READ:
        return None
    found: list[bytes | None] = [None] * len(files)
    some_files = [files[place] for place in doubtful]
    few = sum(sizes[place] for place in doubtful) < LEAST
    read = _read(some_files) if few else kept.once(kept.key(some_files, "copies"), lambda: _read(some_files))
    for place, digest in zip(doubtful, read, strict=True):
        found[place] = digest and bytes.fromhex(digest)
    return found


def copies_of(known: Sequence[Readable], files: Sequence[Readable]) -> Tensor | None:
    """Which files have the same bytes as a known one, `[files]`, boolean; None where nobody has looked."""
    found = digests([*known, *files])
    if found is None:
        return None
    taken = {digest for digest in found[: len(known)] if digest}
    return torch.tensor([digest in taken for digest in found[len(known) :]], dtype=torch.bool)


def _read(files: Sequence[Readable]) -> list[str | None]:
    with ThreadPoolExecutor() as pool:
        return list(progress.through(pool.map(_digest, files), len(files), "looking for copies"))


def _size(file: Readable) -> int:
    return file.stat().st_size if isinstance(file, Path) else int(getattr(file, "size", -1))


def _digest(file: Readable) -> str | None:
    try:
        return blake2b(file.read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return None


def _groups(files: Sequence[Readable], pattern: str) -> Tensor | None:
    if not pattern:
        return None
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"group={pattern} is no regular expression ({error}): correct it") from None
    found = [expression.search(str(file)) for file in files]
    names = [one and (one.group(1) if expression.groups else one.group()) for one in found]
    if not any(names):
        raise InputError(f"group={pattern} finds nothing in {files[0]} and all other files: give what groups share")
    return together.numbered(names)
