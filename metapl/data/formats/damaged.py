"""Image files that cannot be read, all of which one message names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from metapl.data.formats.decode import brightest
from metapl.data.formats.files import Readable, shown
from metapl.registry.errors import InputError

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
    """The files that are no images that can be read. Cost: all of them are decoded."""

    def is_bad(file: Readable) -> bool:
        try:
            brightest(file)
        except InputError:
            return True
        return False

    with ThreadPoolExecutor() as pool:
        return [file for file, bad in zip(files, pool.map(is_bad, files), strict=True) if bad]
