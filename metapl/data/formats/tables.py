"""How a row of a table becomes a vector: numbers standardised, categories one-hot.

`fit` describes the columns of the training table, `encode` turns the rows of any table with these columns into
features, and `read` does so for the form that a run has saved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from metapl.data.examples import Inputs
from metapl.data.form import Form
from metapl.data.formats import limits
from metapl.data.formats.csv_file import Table, load
from metapl.registry.errors import InputError

CATEGORIES = 100
"""The most that a column of texts may have."""

FEW = 10
"""Up to so many rows, a column without repetitions means nothing."""

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


def parse(text: str) -> float | None:
    """The finite number that a text is, NaN for the empty text, None for any other."""
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def fit(table: Table, label: str, ignore: Sequence[str] = (), pool: Tensor | None = None) -> Columns:
    """Describe the columns of a training table.

    A column is a number if all of its values are, however few differ, and a category otherwise; numbers have a decimal
    point, a decimal comma is not guessed. Mean, standard deviation (of the known values, divided by their number) and
    whether values are missing come from the pool alone, categories from all rows. Numbers that are the same in all of
    the pool and texts that are the same in all rows are left out.

    Args:
        table: the training table.
        label: the column of the labels.
        ignore: other columns that the network must not see.
        pool: the rows `[pool]` of the training pool; all rows by default.

    Raises:
        InputError: texts of more than 100 categories or all different, numbers that count the rows, or no column that
            is left.
    """
    rows = np.arange(len(table.lines)) if pool is None else pool.numpy()
    described = [_describe(table, name, rows) for name in table.columns if name != label and name not in ignore]
    columns = [column for column in described if column]
    if not columns:
        raise InputError(
            f"{table.place}: no column that varies is left beside {label!r}: add one, ignore fewer, or separate the "
            "columns by , ; tab or |"
        )
    return columns


def _describe(table: Table, name: str, rows: np.ndarray) -> dict[str, Any]:
    """The description of a column, empty where it says nothing."""
    cells = table.columns[name]
    parsed = [parse(cell) for cell in cells]
    values = [value for value in parsed if value is not None]
    categories = set(cells)
    alone = len(categories) == len(cells) > FEW
    if len(values) < len(cells):
        if alone or len(categories) > CATEGORIES:
            at = parsed.index(None)
            raise InputError(
                f"{table.place}, line {table.lines[at]}: column {name!r} has texts such as {cells[at]!r}, "
                f"{len(categories)} different ones in {len(cells)} rows: leave it out with ignore={name}, or make it "
                f"numbers (with a decimal point) or at most {CATEGORIES} categories"
            )
        return {"name": name, "kind": "category", "categories": sorted(categories)} if len(categories) > 1 else {}
    if alone and all(cell.isdecimal() for cell in cells) and max(values) - min(values) == len(cells) - 1:
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


def encode(columns: Columns, table: Table) -> Tensor:
    """The rows of a table as features `[rows, features]`, float32, see `Columns`; a missing number is the mean.

    The table's columns may stand in any order, and others are ignored.

    Raises:
        InputError: a column that is not there, a text among numbers, a number beyond reason, a category that the
            training table did not have.
    """
    for column in columns:
        if column["name"] not in table.columns:
            raise InputError(f"{table.place} has no column {column['name']!r}, which the training table had: add it")
    limits.require(4 * len(table.lines) * len(layout(columns).columns), f"{table.place}: the features")
    parts = [(_numbers if column["kind"] == "number" else _categories)(column, table) for column in columns]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _refused(table: Table, name: str, row: int, known: str) -> InputError:
    cell = table.columns[name][row]
    value = repr(cell) if cell else "no value"
    return InputError(
        f"{table.place}, line {table.lines[row]}: column {name!r} has {value}, but the training table {known}"
    )


def _numbers(column: dict[str, Any], table: Table) -> np.ndarray:
    name, mean, std = column["name"], column["mean"], column["std"]
    parsed = [parse(cell) for cell in table.columns[name]]
    if None in parsed:
        raise _refused(table, name, parsed.index(None), "had numbers: correct it, or leave it empty")
    values = np.array(parsed, dtype=np.float64)
    features = []
    if std:
        far = np.abs(values / FAR - mean / FAR) > std
        if far.any():
            about = f"had numbers about {mean:.6g}: correct it, or leave it empty"
            raise _refused(table, name, int(far.argmax()), about)
        features.append(np.nan_to_num((values - mean) / std, nan=0.0))
    if column["missing"]:
        features.append(np.isnan(values).astype(np.float64))
    return np.stack(features, axis=1).astype(np.float32)


def _categories(column: dict[str, Any], table: Table) -> np.ndarray:
    known = {category: index for index, category in enumerate(column["categories"])}
    found = [known.get(cell, -1) for cell in table.columns[column["name"]]]
    if -1 in found:
        some = [category for category in known if category]
        listed = ", ".join(some[:5]) + (", …" if len(some) > 5 else "")
        raise _refused(table, column["name"], found.index(-1), f"had {listed}: correct it, or train again with it")
    return np.eye(len(known), dtype=np.float32)[found]


def read(form: Form, places: Sequence[Path]) -> Inputs:
    """Fresh rows of CSV files in the form of a trained run, with the column of the labels or without.

    Their names are `row 1` and so on, `file:1` where there are several files.

    Raises:
        InputError: as `metapl.data.formats.csv_file.load` and `encode`.
    """
    found = [load(place) for place in places]
    x = torch.cat([encode(form.details["columns"], table) for table in found])
    names = [
        f"row {row}" if len(found) == 1 else f"{table.place}:{row}"
        for table in found
        for row in range(1, len(table.lines) + 1)
    ]
    return Inputs(names, x)
