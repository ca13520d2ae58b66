"""A column of texts of one's own table, with the labels beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.data import marker as rule
from metapl.data.formats.csv_file import Table
from metapl.data.formats.table_file import load
from metapl.data.sources import table_labels
from metapl.registry.errors import InputError, unknown


class Texts(NamedTuple):
    """Texts and their classes."""

    x: Sequence[str]
    y: Tensor
    """Class indices `[texts]`, int64; −1 where nobody knows."""
    x_test: Sequence[str]
    """Empty where there is no test of its own."""
    y_test: Tensor
    classes: tuple[str, ...]


def texts(place: Path, column: str, *, label: str = "", test_file: str = "", marker: str = rule.AUTO) -> Texts:
    """A column of a CSV file as `metapl.data.formats.csv_file.load` reads it; empty texts are texts too.

    Args:
        place: the file.
        column: that holds the texts.
        label: the column of the labels; else as of `metapl.data.sources.table.table`.
        test_file: another table that is the test, as of `metapl.data.sources.table.table`.
        marker: as of `metapl.data.sources.table.table`.

    Raises:
        InputError: files that cannot be read, unknown columns, labels that are no classes, a test without labels.
    """
    train = load(place)
    labels = table_labels.find(train, label, [column] if column in train.columns else [], marker)
    x, y = _column(train, column), table_labels.indices(train, labels)
    if not test_file:
        return Texts(x, y, (), torch.zeros(0, dtype=torch.int64), labels.classes)
    test = load(place.parent / test_file)
    y_test = table_labels.indices(test, labels)
    known = (y_test >= 0).nonzero()[:, 0]
    if not len(known):
        raise InputError(
            f"{test.place}: no row has a label in {labels.column!r}, so that nothing can be tested: add labels"
        )
    found = _column(test, column)
    return Texts(x, y, [found[row] for row in known.tolist()], y_test[known], labels.classes)


def fresh(place: Path, column: str) -> Sequence[str]:
    """The texts in a column of a CSV file, with labels beside it or without.

    Raises:
        InputError: a file that cannot be read, or without that column.
    """
    return _column(load(place), column)


def _column(found: Table, name: str) -> Sequence[str]:
    if name not in found.columns:
        raise unknown(f"text column of {found.place}", name, found.columns)
    return found.columns[name]
