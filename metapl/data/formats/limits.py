"""How much a file may become in memory, by what its header says, so that a small file cannot take all of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from metapl.registry.errors import InputError

VARIABLE = "METAPL_MEMORY"
"""Environment variable with another limit than `DEFAULT`, in GiB."""

DEFAULT = 4.0
"""GiB of arrays, of a table or of a file that is read in one go; working with them takes a few times more."""

PIXELS = 2**26
"""Of one image before it is fitted: 67 million, such as 8192×8192. So many are decoded at a time, by all threads."""

CLASSES = 2**16
"""The most classes that labels can have; beyond them, numbers are no classes."""


def most() -> int:
    """The limit in bytes.

    Raises:
        InputError: the environment variable is no number above zero.
    """
    text = os.environ.get(VARIABLE, "") or str(DEFAULT)
    try:
        gib = float(text)
    except ValueError:
        gib = 0.0
    if not 0 < gib < 2**23:  # which are all the bytes that an int64 can count
        raise InputError(f"{VARIABLE}={text} must be a number of GiB, such as 16")
    return int(gib * 2**30)


def require(size: int, where: str) -> None:
    """Check that so many bytes may be read or made.

    Raises:
        InputError: they are too many.
    """
    limit = most()
    if size > limit:
        raise InputError(
            f"{where}: {size / 2**30:,.1f} GiB in memory, where at most {limit / 2**30:g} are allowed: give less at a "
            f"time, or set {VARIABLE} to more GiB"
        )


class _Share:
    """A number that threads divide between them: who wants more than is left waits."""

    def __init__(self, whole: int) -> None:
        self._left, self._changed = whole, threading.Condition()

    @contextmanager
    def of(self, part: int) -> Iterator[None]:
        """Have a part, no larger than the whole, for a while."""
        with self._changed:
            self._changed.wait_for(lambda: part <= self._left)
            self._left -= part
        try:
            yield
        finally:
            with self._changed:
                self._left += part
                self._changed.notify_all()


decoding = _Share(PIXELS)
"""Of the pixels that may be decoded at a time."""
