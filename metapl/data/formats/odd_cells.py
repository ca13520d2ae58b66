"""Columns of numbers with a few other cells among them, which are refused with the remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from metapl.data.formats import cells
from metapl.data.formats.cells import parse
from metapl.data.formats.csv_file import Table
from metapl.data.notes import MOST, some
from metapl.registry.errors import InputError

FEW = 10
"""Up to so many rows, a column without repetitions means nothing."""

SPELLINGS = {"decimal=,": (",", False), "percent=true": (".", True), "decimal=,,percent=true": (",", True)}
"""The options for numbers in other spellings, with the arguments of `metapl.data.formats.cells.spelt`."""


THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
"""A number that may have commas between its thousands."""


def require_texts(table: Table, name: str, parsed: Sequence[float | None]) -> None:
    """Refuse a column with cells that are no numbers where it must be meant to be one of numbers.

    Args:
        table: with the column.
        name: of the column.
        parsed: its cells as `metapl.data.formats.cells.number` reads them, None where one is no number.

    Raises:
        InputError: such a column.
    """
    odd = [row for row, value in enumerate(parsed) if value is None]
    known = [value for value in parsed if value is not None and not math.isnan(value)]
    shown = [f"{table.columns[name][row]!r} in line {table.lines[row]}" for row in odd]
    where, otherwise = f"{table.place}: column {name!r}", f"or category={name} if its numbers are names"
    if all(THOUSANDS.fullmatch(table.columns[name][row]) for row in odd):
        raise InputError(
            f"{where} has numbers such as {shown[0]}, whose comma may stand between thousands or before decimals: "
            f"write them without it, or give decimal=, if it is before decimals, {otherwise}"
        )
    for option, way in SPELLINGS.items():
        if all(parse(cells.spelt(table.columns[name][row], *way)) is not None for row in odd):
            raise InputError(f"{where} has numbers such as {shown[0]}: give {option} to read them, {otherwise}")
    few = 20 * len(odd) <= len(odd) + len(known) or (len(set(known)) > FEW and len(odd) < len(known))
    if few and len(set(known)) > 1:
        values = "/".join(dict.fromkeys(table.columns[name][row] for row in odd[:MOST]))
        raise InputError(
            f"{where} is numbers but for {len(odd):,} of {len(odd) + len(known):,} cells, {some(shown)}: correct them, "
            f"or give missing={values} if they are no values, {otherwise}"
        )
