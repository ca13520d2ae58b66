"""The labels of a table: which column they are in, which classes there are, and which rows have none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.data import marker as rule
from metapl.data.formats.cells import parse
from metapl.data.formats.column_notes import may_be_classes
from metapl.data.formats.csv_file import Table
from metapl.data.notes import CAREFUL, Note, some
from metapl.registry.errors import InputError, unknown

USUAL = ("label", "target", "class", "y")
"""What the column of the labels is called, in small letters or large."""

DOUBTFUL = ("class", "y")
"""Which of them are called so for other reasons too, such as the class of a cabin."""

QUANTITY = 100
"""More different numbers than this are no classes."""

GRADES = 10
"""More different numbers than this with decimals among them are none either."""


class Labels(NamedTuple):
    """What the column of the labels of the training table says."""

    column: str
    classes: tuple[str, ...]
    """Sorted, by value if all are numbers."""
    none: frozenset[str]
    """The labels beside the empty one that mean that there is none."""
    notes: tuple[Note, ...]


def class_name(text: str) -> str:
    """A number in its shortest form, since 1 becomes 1.0 in many programs once a label is missing."""
    value = parse(text)
    # float64 tells no two whole numbers apart beyond 2⁵³.
    return text if not text or value is None or abs(value) >= 2**53 else repr(value).removesuffix(".0")


def find(table: Table, label: str, ignored: Sequence[str], marker: str) -> Labels:
    """What the training table says of its labels.

    Args:
        table: the training table.
        label: the column; else the one of `USUAL`, else the last one.
        ignored: columns that are not looked at.
        marker: labels that mean no label, see `metapl.data.marker.find`.

    Raises:
        InputError: no such column, two that may be it, fewer than two classes, too many of them, or a label that may be
            a class and may be none.
    """
    column, how = _column(table, label, ignored)
    where = f"{table.place}: column {column!r}"
    counts = Counter(class_name(cell) for cell in table.columns[column] if cell)
    none = rule.find(counts, marker, where)
    classes = _classes({name: count for name, count in counts.items() if name not in none}, where)
    found = [Note("label", f"{column!r}, {how}: {len(classes)} classes, {some([repr(name) for name in classes], 5)}")]
    found += [] if label else _others(table, column, ignored, guessed=column.lower() not in USUAL)
    return Labels(column, classes, none, (*found, *rule.notes(counts, none, "rows")))


def _others(table: Table, column: str, ignored: Sequence[str], guessed: bool) -> list[Note]:
    """Which columns may be the label too, where none was asked for."""
    may = [name for name in table.columns if name not in (column, *ignored) and may_be_classes(table.columns[name])]
    doubtful = guessed or (column.lower() in DOUBTFUL and column != list(table.columns)[-1])
    if not may or not doubtful:
        return []
    return [Note(CAREFUL, f"the label may also be {some([repr(name) for name in may])}: label={may[0]} if it is")]


def _column(table: Table, label: str, ignored: Sequence[str]) -> tuple[str, str]:
    """The column, and why it is that one."""
    if label in ignored:
        raise InputError(f"label={label} is also in ignore: take it out of one of them")
    if label:
        if label not in table.columns:
            raise unknown(f"label column of {table.place}", label, table.columns)
        return label, "as asked for"
    free = [name for name in table.columns if name not in ignored]
    usual = [name for name in free if name.lower() in USUAL]
    if len(usual) > 1:
        raise InputError(
            f"{table.place}: the labels may be in {' or '.join(map(repr, usual))}: give label={usual[0]}, and "
            f"ignore={usual[1]} unless the network may see it"
        )
    if not free:
        raise InputError(f"{table.place}: ignore leaves no column: ignore fewer")
    if usual and usual[0].lower() == "y" and usual[0] != free[-1] and "x" in map(str.lower, free):
        raise InputError(
            f"{table.place}: columns 'x' and {usual[0]!r} may be coordinates: give label={free[-1]} if they are, or "
            f"label={usual[0]}"
        )
    if usual:
        return usual[0], "by its name"
    texts = [name for name in free if any(cell and parse(cell) is None for cell in table.columns[name])]
    if len(texts) == 1 and texts[0] != free[-1] and _repeats(table.columns[texts[0]]):
        return texts[0], "the only column of texts"
    return free[-1], "the last column"


def _repeats(cells: Sequence[str]) -> bool:
    """Whether there are at least two different cells, that come three times on average."""
    counts = Counter(cell for cell in cells if cell)
    return len(counts) >= 2 and counts.total() >= 3 * len(counts)


def _classes(counts: dict[str, int], where: str) -> tuple[str, ...]:
    names, rows = sorted(counts), sum(counts.values())
    values = {name: parse(name) for name in names}
    numbers = {name: value for name, value in values.items() if value is not None}
    if len(names) < 2:
        found = f"has one class only, {names[0]!r}" if names else "has no label at all"
        raise InputError(f"{where} {found}: give rows of two classes at least, or choose the column with label=NAME")
    if len(numbers) < len(names):
        if len(names) > QUANTITY and 2 * len(names) > rows:
            raise InputError(
                f"{where} has {len(names)} different texts in {rows} labelled rows, which are no classes: "
                "choose the column with label=NAME"
            )
        return tuple(names)
    whole = all(value.is_integer() for value in numbers.values())
    if len(names) > (QUANTITY if whole else GRADES):
        raise InputError(
            f"{where} has {len(names)} different numbers, which look like a quantity, not classes: choose the column "
            "with label=NAME, or write ranges of it as texts such as 'low' and 'high'"
        )
    return tuple(sorted(names, key=numbers.__getitem__))


def indices(table: Table, labels: Labels) -> Tensor:
    """The class index of each row, `[rows]`, int64, −1 where there is no label.

    Raises:
        InputError: no column of labels, or a class that the training table does not have.
    """
    if labels.column not in table.columns:
        raise InputError(f"{table.place} has no column {labels.column!r} with the labels: add it")
    index = {**dict.fromkeys(("", *labels.none), -1), **{name: at for at, name in enumerate(labels.classes)}}
    names = [class_name(cell) for cell in table.columns[labels.column]]
    for line, name in zip(table.lines, names, strict=True):
        if name not in index and not rule.is_sure(name):
            raise InputError(
                f"{table.place}, line {line}: class {name!r} is not in the training table "
                f"({', '.join(labels.classes[:5])}{', …' * (len(labels.classes) > 5)}): correct it, or add rows of it "
                "there"
            )
    return torch.tensor([index.get(name, -1) for name in names])
