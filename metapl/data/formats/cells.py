"""What a cell of a table says: a number, that nothing is known, or a text."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from metapl.data.formats.csv_file import Table

ABSENT = frozenset(
    (
        *("", "-", "--", "---", "–", "—", ".", "..", "...", "?", "??", "<na>", "#n/a", "#na", "n/a", "n.a.", "n.a"),
        *("na", "nan", "none", "null", "nil", "missing", "unknown", "not available", "not applicable", "n.d."),
    )
)
"""Cells that are no value in a column of numbers, in small letters."""

COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)?(,\d+)?([eE][+-]?\d+)?")
"""A number with a decimal comma, points between its thousands or none."""


class Reading(NamedTuple):
    """How the cells of a table are written, beyond what is usual."""

    missing: tuple[str, ...] = ()
    """Cells that are no value, such as −999; a number is meant in any way of writing it."""
    decimal: str = "."
    """What stands before the decimals, a point or a comma."""
    percent: bool = False
    """Whether 12% is the number 12."""
    header: bool = True
    """Whether the first line of a CSV file names the columns."""
    encoding: str = ""
    """Of a CSV file; empty for UTF-8 or what the file begins with."""
    sheet: str = ""
    """Of a workbook; empty for the only one."""

    def to_json(self) -> dict[str, Any]:
        """What differs from the usual; JSON can hold it."""
        found = {name: value for name, value in self._asdict().items() if value != self._field_defaults[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def reading(found: dict[str, Any]) -> Reading:
    """What `Reading.to_json` made."""
    return Reading(**{**found, **({"missing": tuple(found["missing"])} if "missing" in found else {})})


def parse(text: str) -> float | None:
    """The finite number that a text is, NaN for the empty text, None for any other.

    A text with `_`, which Python reads as a number, is a name such as `3_1`.
    """
    if not text:
        return math.nan
    if "_" in text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def number(text: str) -> float | None:
    """As `parse`, and NaN for what is `ABSENT` too."""
    value = parse(text)
    return math.nan if value is None and text.casefold() in ABSENT else value


def numbers(texts: Sequence[str]) -> np.ndarray:
    """Cells as `number` reads them, `[cells]`, float64; NaN for those that are no numbers too."""
    if (found := _all_numbers(texts)) is not None:
        return found
    return np.array([math.nan if (value := number(text)) is None else value for text in texts], dtype=np.float64)


def parsed(texts: Sequence[str]) -> list[float | None]:
    """`number` of every cell."""
    found = _all_numbers(texts)
    return [number(text) for text in texts] if found is None else found.tolist()


def _all_numbers(texts: Sequence[str]) -> np.ndarray | None:
    """Cells that are numbers without exception, as most columns of large tables are: four times as fast."""
    if "_" in "".join(texts):
        return None
    try:
        found = np.array(list(map(float, texts)), dtype=np.float64)
    except ValueError:
        return None
    return found if np.isfinite(found).all() else None


def without_comma(text: str) -> str:
    """A number with a decimal comma as one with a point, without points between thousands; other texts as they are."""
    if not text or not COMMA.fullmatch(text):
        return text
    return text.replace(".", "").replace(",", ".")


def spelt(text: str, decimal: str, percent: bool) -> str:
    """A number in another spelling as `parse` reads it; other texts as they are.

    Args:
        text: a cell.
        decimal: a comma, if numbers have one before their decimals.
        percent: whether they may have a % behind them.
    """
    bare = text[:-1].rstrip() if percent and text.endswith("%") else text
    bare = without_comma(bare) if decimal == "," else bare
    return bare if bare and parse(bare) is not None else text


def tidy(table: Table, how: Reading, kept: Collection[str] = ()) -> Table:
    """A table with numbers as `parse` reads them, and empty cells for missing ones.

    Args:
        table: as it was read.
        how: its cells are written.
        kept: columns that stay as they are.
    """
    if how._replace(header=True, encoding="", sheet="") == Reading():
        return table
    values = {value for value in map(parse, how.missing) if value is not None}

    def cleaned(cell: str) -> str:
        if cell in how.missing:
            return ""
        cell = spelt(cell, how.decimal, how.percent)
        return "" if values and parse(cell) in values else cell

    columns = {name: cells if name in kept else tuple(map(cleaned, cells)) for name, cells in table.columns.items()}
    return table._replace(columns=columns)
