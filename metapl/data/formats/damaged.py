"""Image files that cannot be read, all of which one message names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from metapl.data import progress
from metapl.data.formats import kept
from metapl.data.formats.decode import brightest
from metapl.data.formats.files import Readable, shown
from metapl.registry.errors import InputError

MANY = 256
"""Files from which it is kept which of them are damaged."""

LISTED = 10
"""Damaged files that an error names."""


@contextmanager
def naming_all(files: Sequence[Readable]) -> Iterator[None]:
    """Where a file is no image, an error that names the others that are none too."""
    try:
        yield
    except InputError:
        bad = damaged(files)
        if len(bad) < 2:
            raise
        listed = ", ".join(shown(file) for file in bad[:LISTED]) + ", …" * (len(bad) > LISTED)
        raise InputError(
            f"{len(bad):,} files are no images that can be read: {listed}: remove them, or give skip_bad=true"
        ) from None


def damaged(files: Sequence[Readable]) -> list[Readable]:
    """The files that are no images that can be read.

    Cost: all of them are decoded. Of `MANY` and more it is kept which are bad, see `metapl.data.formats.kept`, and
    those alone are looked at again.
    """
    if len(files) < MANY:
        return [files[place] for place in _bad(files)]
    try:
        name = kept.key(files, "damaged")
    except OSError:  # of a file that is gone, which is bad too
        return [files[place] for place in _bad(files)]
    doubtful = [files[place] for place in kept.once(name, lambda: _bad(files))]
    return [doubtful[place] for place in _bad(doubtful)]


def _bad(files: Sequence[Readable]) -> list[int]:
    def is_bad(file: Readable) -> bool:
        try:
            brightest(file)
        except InputError:
            return True
        return False

    with ThreadPoolExecutor() as pool:
        each = progress.through(pool.map(is_bad, files), len(files), "looking for damaged images")
        return [place for place, bad in enumerate(each) if bad]
