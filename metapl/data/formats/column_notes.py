"""What each column of a table was taken for, in words, and what is doubtful about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from metapl.data.formats.cells import number, numbers
from metapl.data.formats.csv_file import Table
from metapl.data.formats.tables import FEW, Columns
from metapl.data.notes import CAREFUL, COLUMN, Note, some

PLURAL = {"number": "numbers", "category": "categories"}
"""Of what a column may be."""

FAR = 10.0
"""Spans of all other values, at this distance from which a value flattens the column."""

NINES = 0.5
"""The same for values of nines alone, such as −999, which are written for missing ones."""

ONE = 1.0
"""The same for `SMALL` values, where no other value is below zero."""

GROUPS = re.compile(
    r"(patient|subject|person|user|customer|session|video|household|animal|group|donor|speaker)s?([ _-]?id)?"
)
"""Names of columns, in small letters, whose rows of one value should be on one side of the test."""

DATE = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4}")
"""How a date begins."""

UNIT = re.compile(r"([^\w\s.,+-]?)\s*([+-]?\d[\d.,]*)\s*([^\d\s.,]\S*|)")
"""A number with what stands before it, such as a sign of money, and behind it, such as a unit."""

MANY = 10
"""Labelled rows for each class from which it is no chance that a column says the label of all of them."""

SMALL = (-1.0, -9.0)
"""Values that are written for missing ones, though they are short."""

SENTINELS = 3
"""The most values of a column that are looked at on either side."""


def describe(table: Table, columns: Columns, taken: Mapping[str, str]) -> list[Note]:
    """A note for each column of a training table, one of how many are what, and warnings.

    Args:
        table: the training table.
        columns: what the network sees.
        taken: what the other columns were taken for, such as the label, in words.
    """
    seen = {column["name"]: column for column in columns}
    each, kinds, careful = [], Counter[str](), []
    for name, cells in table.columns.items():
        if name in taken:
            kind, text = taken[name].partition(",")[0], taken[name]
        elif name not in seen:
            kind = "constant" if any(cells) else "empty"
            text = f"{kind}, left out"
        elif seen[name]["kind"] == "category":
            kind, names = "category", seen[name]["categories"]
            text = f"category of {len(names)}: {some([repr(one) for one in names], 5)}"
            careful += [Note(CAREFUL, f"column {name!r}: {one}") for one in _meant_as_numbers(names)]
        else:
            kind, values = "number", numbers(cells)
            text = _number(table, name, values)
            careful += [Note(CAREFUL, f"column {name!r}: {one}") for one in _doubts(name, values)]
        if name in seen and GROUPS.fullmatch(name.lower()) and FEW < 2 * len(set(cells)) <= len(cells):
            text_of = f"column {name!r} may name groups: group={name} keeps each on one side of the test"
            careful.append(Note(CAREFUL, text_of))
        kinds[kind] += 1
        each.append(Note(COLUMN, f"{name!r}: {text}", name))
    counted = ", ".join(f"{count} {PLURAL.get(kind, kind) if count > 1 else kind}" for kind, count in kinds.items())
    return [Note("columns", counted), *careful, *each]


def _meant_as_numbers(categories: Sequence[str]) -> list[str]:
    """What is to be said of many categories that are numbers with a unit, or dates."""
    given = [one for one in categories if one]
    if len(given) <= FEW:
        return []
    if all(DATE.match(one) for one in given):
        return [f"dates such as {given[0]!r} are {len(given)} categories: ignore it, or write numbers of days"]
    parts = [UNIT.fullmatch(one) for one in given]
    around = {(one.group(1), one.group(3)) for one in parts if one}
    if all(parts) and len(around) == 1 and around != {("", "")}:
        return [f"{given[0]!r} and the like are {len(given)} categories: write the numbers alone, without the unit"]
    return []


def tells(table: Table, label: str, classes: Sequence[str], y: Sequence[int], seen: Columns) -> list[Note]:
    """Warnings of columns that say the label of every row, and may be made of it.

    Args:
        table: the training table.
        label: the column of the labels.
        classes: their names.
        y: the class of each row, −1 where there is none.
        seen: what the network sees.
    """
    found = []
    known = [row for row, one in enumerate(y) if one >= 0]
    for column in seen:
        cells = table.columns[column["name"]]
        of_cell: dict[str, set[int]] = {}
        for row in known:
            owners = of_cell.setdefault(cells[row], set())
            owners.add(y[row])
            if len(owners) > 1 or len(of_cell) > len(classes):
                break
        else:
            if len(known) > MANY * len(classes) and len(of_cell) == len(classes):
                name = column["name"]
                text = f"column {name!r} says {label!r} of every row: ignore={name} if it is made of it"
                found.append(Note(CAREFUL, text))
    return found


def _number(table: Table, name: str, values: np.ndarray) -> str:
    known = values[~np.isnan(values)]
    text = f"number, {known.min():.6g} to {known.max():.6g}" if len(known) else "number"
    absent = np.isnan(values).nonzero()[0].tolist()
    words = [f"{table.columns[name][row]!r} in line {table.lines[row]}" for row in absent if table.columns[name][row]]
    return text + (f", {len(absent):,} missing" if absent else "") + (f" ({some(words)})" if words else "")


def _doubts(name: str, values: np.ndarray) -> list[str]:
    known = values[~np.isnan(values)]
    found = [
        f"{count:,} cells are {value:.6g}, far from all others: if they are no values, give missing={value:.15g}"
        for value, count in sentinels(known)
    ]
    if len(known) == len(values) > FEW and ((np.diff(known) > 0).all() or (np.diff(known) < 0).all()):
        found.append(f"it goes one way from row to row, as an identifier or a time does: ignore={name} if it is one")
    return found


def sentinels(values: np.ndarray) -> list[tuple[float, int]]:
    """Values that stand for missing ones, by all appearance, each with how often it occurs.

    They are far from all others: by `FAR` times what the others span, or by `NINES` times where all digits are 9, or by
    `ONE` time where they are −1 or −9.

    Args:
        values: known values, in any order.
    """
    levels, counts = np.unique(values, return_counts=True)
    found = []
    for _ in range(SENTINELS):
        if len(levels) < 4:
            break
        with np.errstate(over="ignore"):
            below = _distance(levels[::-1])
            above = _distance(levels)
        at = -1 if above >= below else 0
        value, count, distance = float(levels[at]), int(counts[at]), max(above, below)
        if distance < (NINES if _is_nines(value) else ONE if value in SMALL and levels[1] >= 0 else FAR):
            break
        found.append((value, count))
        levels, counts = (levels[:-1], counts[:-1]) if at else (levels[1:], counts[1:])
    return found


def _distance(levels: np.ndarray) -> float:
    """Of the last level from the one before, in spans of all but the last."""
    return float(abs(levels[-1] / 2 - levels[-2] / 2) / abs(levels[-2] / 2 - levels[0] / 2))


def _is_nines(value: float) -> bool:
    return abs(value) >= 99 and set(f"{abs(value):.15g}") == {"9"}


def may_be_classes(cells: Sequence[str]) -> bool:
    """Whether cells may be classes: texts or whole numbers, a few different ones, each several times."""
    counts = Counter(cell for cell in cells if cell)
    if not 2 <= len(counts) <= FEW or sum(counts.values()) < 3 * len(counts):
        return False
    return all(value is None or value.is_integer() for value in map(number, counts))
