"""A table as data: columns with a title and a way to write their values, and rows of values.

The code that knows the facts makes the table; Markdown, the terminal and a page only show it.

Examples:
    >>> from metapl.files.table import Column, Table, markdown, percent
    >>> found = Table((Column("arm"), Column("top-1 %", percent, "figure")), [("exact", 0.7188)])
    >>> print(markdown(found))
    | arm | top-1 % |
    | --- | --- |
    | exact | 71.88 |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from metapl.files.escape import in_table

Look: TypeAlias = Literal["words", "figure", "code", "name", "label", "list", "meter"]
"""How a page shows a column: words that break; a figure, to the right; code; a name, with room for long ones; a label,
in one line; a list, of which the value is a sequence; a share, with a bar."""


class Column(NamedTuple):
    """A column of a table."""

    title: str
    write: Callable[[Any], str] = str
    """The text of a value."""
    look: Look = "words"


class Table(NamedTuple):
    """A table. A value is what its column writes, or text as it is, or None for an empty cell."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    label: str = ""
    """What the table is, for a reader who cannot see it."""
    chosen: int = -1
    """The row that stands out; -1 for none."""

    @property
    def titles(self) -> list[str]:
        """The headings."""
        return [column.title for column in self.columns]

    @property
    def cells(self) -> list[list[str]]:
        """The text of every value, row by row."""
        return [[text(*cell) for cell in zip(self.columns, row, strict=True)] for row in self.rows]

    def without(self, *titles: str) -> Table:
        """All but the columns with these titles."""
        kept = [place for place, column in enumerate(self.columns) if column.title not in titles]
        rows = [[row[place] for place in kept] for row in self.rows]
        return self._replace(columns=[self.columns[place] for place in kept], rows=rows)


def text(column: Column, value: Any) -> str:
    """The text of a value in its column."""
    if value is None:
        return ""
    return value if isinstance(value, str) else column.write(value)


def markdown(table: Table) -> str:
    """The table for a page of documentation; names in it can neither break it nor add elements."""
    lines = [table.titles, ["---"] * len(table.columns), *table.cells]
    return "\n".join(f"| {' | '.join(map(in_table, line))} |" for line in lines)


def whole(value: int) -> str:
    """A count, with commas."""
    return f"{value:,}"


def _signed(value: float, text: str) -> str:
    return f"−{text}" if value < 0 and any(digit in text for digit in "123456789") else text


def number(value: float, digits: int = 3) -> str:
    """A number with so many decimals; a dash for NaN."""
    return "–" if math.isnan(value) else _signed(value, f"{abs(value):,.{digits}f}")


def percent(share: float, digits: int = 2) -> str:
    """A share in per cent, without the sign of per cent; a dash for NaN."""
    return "–" if math.isnan(share) else _signed(share, f"{abs(100 * share):.{digits}f}")


def plus(text: str) -> str:
    """A number that is a difference, with its sign."""
    return text if text[0] in "−–" or not text.strip("0.") else f"+{text}"
