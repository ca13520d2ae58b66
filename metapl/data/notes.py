"""What a source took the data for, in words: printed before anything is learnt, so that a wrong guess is seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

CAREFUL = "careful"
"""What a note is about that warns: the numbers of a run may not mean what they seem to."""

COLUMN = "column"
"""What a note is about that describes one column of a table."""

MOST = 3
"""Names that a note lists of many."""


class Note(NamedTuple):
    """One thing that a source has understood, left out or found doubtful."""

    about: str
    """One word, such as `labels`, `left out`, `CAREFUL` or `COLUMN`."""
    text: str
    """What is to be known about it, in one line."""
    of: str = ""
    """The column that it is about, with whose name, quoted, the text begins; empty for other notes."""


def some(names: Sequence[object], shown: int = MOST) -> str:
    """The first of many names, as in `a, b, c, …`."""
    return ", ".join(map(str, names[:shown])) + ", …" * (len(names) > shown)


def brief(notes: Iterable[Note]) -> list[Note]:
    """The notes without those of single columns."""
    return [note for note in notes if note.about != COLUMN]
