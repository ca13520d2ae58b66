"""Standard output and standard error that may be closed, full, gone, or unable to write every letter."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

PIPE_CLOSED = 141
"""Exit code where the reader of standard output has gone, as in `metapl grads | head -1`: that of any other program."""

INTERRUPTED = 130
"""Exit code of what is interrupted by the keyboard."""


class Spoken(int):
    """An exit code whose reason has been said already."""


def prepare() -> None:
    """Make the streams safe to write to, once, at the start of a command.

    A closed one is opened for reading, so that no file that is opened later gets its number and everything that is
    written fails, as it should. A letter that the encoding of the locale lacks is written by its number.
    """
    OUTPUT.lost = None
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # gets the lowest number that is free, which is this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - for good
        with suppress(AttributeError):  # what stands in its place under a test
            getattr(sys, name).reconfigure(errors="backslashreplace")


class Output:
    """Standard output that work does not end for: what cannot be written any more is dropped, and `lost` says why."""

    def __init__(self) -> None:
        self.lost: OSError | None = None

    def _attempt(self, act: Callable[[], Any]) -> None:
        if self.lost is None:
            try:
                act()
            except OSError as error:
                self.lost = error

    def write(self, text: str) -> int:
        """Write, or drop."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        self._attempt(self._stream.flush)

    @property
    def _stream(self) -> Any:
        # While it shows a bar, rich has a stand-in of its own in the place of standard output, which writes here.
        return getattr(sys.stdout, "rich_proxied_file", sys.stdout)

    def __getattr__(self, name: str) -> Any:
        """All else is that of standard output."""
        return getattr(self._stream, name)


OUTPUT = Output()


def finish() -> None:
    """Write what is left, and drop what cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _silence(stream)


def _silence(stream: Any) -> None:
    """Have a stream go nowhere: when Python ends, it would fail once more and change the exit code."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def is_gone(error: OSError) -> bool:
    """Whether the reader has gone, which is no fault."""
    return error.errno == errno.EPIPE
