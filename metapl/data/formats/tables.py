"""How a row of a table becomes a vector: numbers standardised, categories one-hot.

`fit` describes the columns of the training table, `encode` turns the rows of any table with these columns into
features, and `read` does so for the form that a run has saved.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from metapl.data.examples import Inputs, Problems
from metapl.data.form import Form
from metapl.data.formats import cells, limits, table_file
from metapl.data.formats.cells import number
from metapl.data.formats.csv_file import Table
from metapl.data.formats.odd_cells import FEW, require_texts
from metapl.data.notes import some
from metapl.registry.errors import InputError

CATEGORIES = 100
"""The most that a column of texts may have."""

SHOWN = 60
"""The most characters of a text in a message."""

FAR = 1e9
"""Standard deviations from the mean at which a number must be a mistake."""

Columns: TypeAlias = list[dict[str, Any]]
"""One entry for each column that the network sees; JSON can hold them.

`{"name": …, "kind": "number", "mean": …, "std": …, "missing": …}` is the feature (value − mean) / std, unless std is 0,
and, if `missing` is true, one that is 1 where the value is missing, else 0. `{"name": …, "kind": "category",
"categories": […]}` is a feature for each category, 1 or 0; the empty text is the category of missing values.
"""


class Layout(NamedTuple):
    """What each feature is."""

    columns: tuple[int, ...]
    """`[features]`: which of the `Columns` it comes from."""
    numbers: tuple[bool, ...]
    """`[features]`: whether it is a standardised number, else it is 1 or 0."""


def fit(
    table: Table, label: str, ignore: Sequence[str] = (), pool: Tensor | None = None, categories: Sequence[str] = ()
) -> Columns:
    """Describe the columns of a training table.

    A column is a number if all of its values are, however few differ, where cells such as `-` and `n.a.` are missing
    values, see `metapl.data.formats.cells.ABSENT`. A column of numbers with other cells among them is refused, with the
    remedy; any other is a category. Mean, standard deviation (of the known values, divided by their number) and whether
    values are missing come from the pool alone, categories from all rows. Numbers that are the same in all of the pool
    and texts that are the same in all rows are left out.

    Args:
        table: the training table.
        label: the column of the labels.
        ignore: other columns that the network must not see.
        pool: the rows `[pool]` of the training pool; all rows by default.
        categories: columns that are categories, whatever they hold.

    Raises:
        InputError: numbers with a few texts among them, texts of more than 100 categories or all different, numbers
            that count the rows, or no column that is left.
    """
    rows = np.arange(len(table.lines)) if pool is None else pool.numpy()
    described = [
        _describe(table, name, rows, name in categories)
        for name in table.columns
        if name != label and name not in ignore
    ]
    columns = [column for column in described if column]
    if not columns:
        raise InputError(
            f"{table.place}: no column that varies is left beside {label!r}: add one, ignore fewer, or separate the "
            "columns by , ; tab or |"
        )
    return columns


def _describe(table: Table, name: str, rows: np.ndarray, category: bool) -> dict[str, Any]:
    """The description of a column, empty where it says nothing."""
    found = table.columns[name]
    parsed = cells.parsed(found)
    values = [value for value in parsed if value is not None]
    categories = set(found)
    alone = len(categories) == len(found) > FEW
    if None in parsed and not category:
        require_texts(table, name, parsed)
    if category or None in parsed or (any(found) and all(map(math.isnan, values))):
        if alone or len(categories) > CATEGORIES:
            at = parsed.index(None) if None in parsed else 0
            raise InputError(
                f"{table.place}, line {table.lines[at]}: column {name!r} has texts such as "
                f"{textwrap.shorten(found[at], SHOWN, placeholder=' …')!r}, {len(categories)} different ones in "
                f"{len(found)} rows: leave it out with ignore={name}, make it numbers (with a point) or at most "
                f"{CATEGORIES} categories, or make vectors of it: metapl embed --text {name}"
            )
        return {"name": name, "kind": "category", "categories": sorted(categories)} if len(categories) > 1 else {}
    if alone and all(cell.isdecimal() for cell in found) and max(values) - min(values) == len(found) - 1:
        raise InputError(
            f"{table.place}: column {name!r} counts the rows, from {min(values):.0f} to {max(values):.0f}: "
            f"leave it out with ignore={name}"
        )
    return _statistics(name, np.array(values)[rows])


def _statistics(name: str, values: np.ndarray) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    if not known.size:
        return {}
    # In this unit no square leaves float64, and equal numbers are ±1, whose mean is not rounded: their std is 0.
    unit = float(np.abs(known).max()) or 1.0
    mean, std = float((known / unit).mean()) * unit, float((known / unit).std()) * unit
    missing = known.size < values.size
    return {"name": name, "kind": "number", "mean": mean, "std": std, "missing": missing} if std or missing else {}


def layout(columns: Columns) -> Layout:
    """What each feature of encoded rows is."""
    features: list[tuple[int, bool]] = []
    for index, column in enumerate(columns):
        if column["kind"] == "number":
            features += [(index, True)] * (column["std"] > 0) + [(index, False)] * column["missing"]
        else:
            features += [(index, False)] * len(column["categories"])
    return Layout(tuple(index for index, _ in features), tuple(number for _, number in features))


def encode(columns: Columns, table: Table, problems: Problems | None = None, first: int = 0) -> Tensor:
    """The rows of a table as features `[rows, features]`, float32, see `Columns`; a missing number is the mean.

    The table's columns may stand in any order, and others are ignored.

    Args:
        columns: of the training table.
        table: with these columns.
        problems: where it is noted what is wrong with single rows; without, it is an error. A category that is new is
            none of those that are known, and a cell that is no number makes a row unread.
        first: the position of the first row there.

    Raises:
        InputError: a column that is not there, a text among numbers, a number beyond reason, a category that the
            training table did not have.
    """
    for column in columns:
        if column["name"] not in table.columns:
            raise InputError(f"{table.place} has no column {column['name']!r}, which the training table had: add it")
    limits.require(4 * len(table.lines) * len(layout(columns).columns), f"{table.place}: the features")
    parts = []
    for column in columns:
        numbers = column["kind"] == "number"
        found, wrong = (_numbers if numbers else _categories)(column, table)
        parts.append(found)
        for row, known in wrong:
            message, remedy = _wrong(table, column["name"], row, known)
            if problems is None:
                raise InputError(f"{message}: {remedy}")
            noted = problems.unread if numbers else problems.doubtful
            noted[first + row] = "; ".join(filter(None, (noted.get(first + row), message)))
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _wrong(table: Table, name: str, row: int, known: tuple[str, str]) -> tuple[str, str]:
    """What is wrong with a cell, and the remedy."""
    cell = table.columns[name][row]
    value = repr(cell) if cell else "no value"
    about, remedy = known
    return (
        f"{table.place}, line {table.lines[row]}: column {name!r} has {value}, but the training table {about}",
        remedy,
    )


Wrong: TypeAlias = list[tuple[int, tuple[str, str]]]
"""Rows with a cell that cannot be encoded; what the training table had, and what to do."""


def _numbers(column: dict[str, Any], table: Table) -> tuple[np.ndarray, Wrong]:
    name, mean, std = column["name"], column["mean"], column["std"]
    values = cells.numbers(table.columns[name])
    remedy = "correct it, or leave it empty"
    doubtful = np.isnan(values).nonzero()[0].tolist()
    wrong: Wrong = [(row, ("had numbers", remedy)) for row in doubtful if number(table.columns[name][row]) is None]
    features = []
    if std:
        far = np.abs(values / FAR - mean / FAR) > std
        wrong += [(row, (f"had numbers about {mean:.6g}", remedy)) for row in far.nonzero()[0].tolist()]
        values = np.where(far, math.nan, values)
        features.append(np.nan_to_num((values - mean) / std, nan=0.0))
    if column["missing"]:
        features.append(np.isnan(values).astype(np.float64))
    return np.stack(features, axis=1).astype(np.float32), wrong


def _categories(column: dict[str, Any], table: Table) -> tuple[np.ndarray, Wrong]:
    known = {category: index for index, category in enumerate(column["categories"])}
    found = [known.get(cell, -1) for cell in table.columns[column["name"]]]
    listed = some([category for category in known if category], 5)
    unknown = f"had {listed}", "correct it, or train again with it"
    # The last row of zeros is for what is none of the categories.
    return np.eye(len(known) + 1, len(known), dtype=np.float32)[found], [
        (row, unknown) for row, at in enumerate(found) if at < 0
    ]


def read(form: Form, places: Sequence[Path], problems: Problems | None = None) -> Inputs:
    """Fresh rows of tables in the form of a trained run, with the column of the labels or without.

    Their names are `row 1` and so on, `file:1` where there are several files.

    Raises:
        InputError: as `metapl.data.formats.table_file.load` and `encode`.
    """
    how = cells.reading(form.details.get("reading", {}))
    found = [cells.tidy(table_file.load(place, how.header, how.encoding, how.sheet), how) for place in places]
    firsts = itertools.accumulate((len(table.lines) for table in found), initial=0)
    columns = form.details["columns"]
    x = torch.cat([encode(columns, table, problems, first) for table, first in zip(found, firsts, strict=False)])
    names = [
        f"row {row}" if len(found) == 1 else f"{table.place}:{row}"
        for table in found
        for row in range(1, len(table.lines) + 1)
    ]
    return Inputs(names, x)
