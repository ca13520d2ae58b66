"""Tables in whatever file they come: CSV, compressed or not, lines of JSON, Parquet, Feather, Excel."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metapl.data.formats import csv_file, limits
from metapl.data.formats.csv_file import MISSING, Table
from metapl.data.notes import some
from metapl.registry.errors import InputError, unknown

TEXTS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""Of the names of files that `metapl.data.formats.csv_file.load` reads."""

LINES = (".jsonl", ".ndjson")
"""Of the names of files with an object of JSON on each line."""

BY_POLARS = {
    ".parquet": "read_parquet",
    ".feather": "read_ipc",
    ".arrow": "read_ipc",
    ".ipc": "read_ipc",
    ".xlsx": "read_excel",
    ".xls": "read_excel",
    ".ods": "read_excel",
}
"""Functions of polars by the endings of the files that they read."""

ENDINGS = (*TEXTS, *LINES, *BY_POLARS)
"""Of the names of all files that are read here."""


def load(place: Path, header: bool = True, encoding: str = "", sheet: str = "") -> Table:
    """Read a table as columns of text, as `metapl.data.formats.csv_file.load` has them.

    Numbers are written so that they can be read back, dates as in ISO 8601, and what is null or NaN is missing. Where a
    file has no lines, the number of the row takes their place; the names of the columns are in line 1.

    Args:
        place: the file.
        header: whether the first line of a CSV file names the columns; without, they are `column1` and so on.
        encoding: of a CSV file; UTF-8, or UTF-16 where it begins so.
        sheet: of a workbook; the only one that has rows, where none is named.

    Raises:
        InputError: a file that cannot be read, a workbook with several sheets, cells that are lists or tables, a
            library that is not there.
    """
    name = place.name.lower()
    if name.endswith(LINES):
        return _of_lines(place)
    function = BY_POLARS.get(place.suffix.lower())
    return _by_polars(place, function, sheet) if function else csv_file.load(place, header, encoding)


def _by_polars(place: Path, function: str, sheet: str) -> Table:
    try:
        import polars  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - optional
    except ImportError:
        raise InputError(
            f"{place}: reading it needs polars: pip install 'metapl[tables]', or save the table as CSV"
        ) from None
    try:
        read = getattr(polars, function)
        frame = _sheet(read(place, sheet_id=0), sheet, place) if function == "read_excel" else read(place)
        limits.require(int(frame.estimated_size()), str(place))
        columns = {name: frame[name].to_list() for name in frame.columns}
    except InputError:
        raise
    except Exception as error:  # a damaged file can make its many readers fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{place}: cannot be read ({reason}): write it again, or save the table as CSV") from None
    return _table(place, columns, range(2, frame.height + 2))


def _sheet(sheets: Mapping[str, Any], wanted: str, place: Path) -> Any:
    """The sheet of a workbook that is meant."""
    filled = {name: frame for name, frame in sheets.items() if frame.height} or dict(sheets)
    if len(filled) == 1:
        return next(iter(filled.values()))
    if not wanted:
        names = some(list(filled), 5)
        raise InputError(f"{place}: has the sheets {names}: say which with sheet=NAME, or save it as CSV")
    if wanted not in filled:
        raise unknown(f"sheet of {place}", wanted, filled)
    return filled[wanted]


def _of_lines(place: Path) -> Table:
    rows: list[dict[str, Any]] = []
    lines = []
    for line, text in enumerate(csv_file.text_of(place).splitlines(), 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise InputError(f'{place}, line {line} is no object of JSON: write one on each line, as {{"a": 1}}')
        rows.append(row)
        lines.append(line)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _table(place, {name: [row.get(name) for row in rows] for name in names}, lines)


def _table(place: Path, columns: Mapping[str, Sequence[Any]], lines: Sequence[int]) -> Table:
    if not columns or not lines:
        raise InputError(f"{place} has no rows: write some")
    csv_file.check_header([" ".join(name.split()) for name in columns], str(place))
    found = {}
    for name, cells in columns.items():
        texts = []
        for line, cell in zip(lines, cells, strict=True):
            if isinstance(cell, (list, dict, bytes)):
                raise InputError(f"{place}, line {line}: column {name!r} holds no single value: leave the column out")
            texts.append(_text(cell))
        found[" ".join(name.split())] = tuple(texts)
    return Table(str(place), found, tuple(lines))


def _text(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, (datetime.date, datetime.time)):
        return cell.isoformat()
    text = repr(cell) if isinstance(cell, float) else " ".join(str(cell).split())
    return "" if text in MISSING else text
