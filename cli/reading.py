"""How far a long reading of data is, on standard error: one line that moves on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TextIO

SOON = 0.5
"""Seconds after which a terminal shows it, and between two times that it does."""

SELDOM = 20.0
"""The same for what is no terminal, such as a log file."""


class Reading:
    """A listener of `metapl.data.progress`."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._what, self._began, self._shown = "", 0.0, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """So much is done."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._began, self._shown = what, now, now
        with suppress(OSError):  # there may be nobody to tell
            self._tell(done, total, now)

    def _tell(self, done: int, total: int, now: float) -> None:
        moves = self._out.isatty()
        if done >= total:
            if moves and self._shown > self._began:
                self._out.write("\r\x1b[K")
            self._what = ""
        elif now - self._shown >= (SOON if moves else SELDOM):
            self._shown = now
            left = (now - self._began) / done * (total - done)
            text = f"{self._what}: {done:,} of {total:,}, {left:.0f} s left"
            self._out.write(f"\r{text}\x1b[K" if moves else f"metapl: {text}\n")
        self._out.flush()
