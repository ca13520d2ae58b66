"""One's own table in a CSV file; rows without a label are the unlabelled ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metapl.core import rng
from metapl.data.augment import presets
from metapl.data.form import Form
from metapl.data.formats.csv_file import Table, load
from metapl.data.formats.tables import Columns, encode, fit, parse
from metapl.data.sources.base import Dataset
from metapl.data.sources.held_out import hold_out
from metapl.registry.errors import InputError, unknown

USUAL = ("label", "target", "class", "y")
"""What the column of the labels is called, in small letters or large."""

QUANTITY = 100
"""More different numbers than this are no classes."""

GRADES = 10
"""More different numbers than this with decimals among them are none either."""


def is_table(place: Path) -> bool:
    """Whether a path is a file whose name ends in .csv or .tsv."""
    return place.suffix.lower() in (".csv", ".tsv") and place.is_file()


def table(place: Path, *, label: str = "", ignore: str = "", test: float = 0.2, test_file: str = "") -> Dataset:
    """A CSV file with a line of names and a row for each example, see `metapl.data.formats.csv_file.load`.

    An empty label makes a row unlabelled. Classes are sorted, by value if all are numbers, of which 1 and 1.0 are the
    same. Features are those of `metapl.data.formats.tables.encode`: mean, standard deviation and whether numbers are
    missing come from the training pool alone, labelled and unlabelled. Categories, which are inputs, come from the test
    part of the same file too; in `test_file` a category that the table does not have is an error.

    Args:
        place: the file.
        label: the column of the labels; else the one named label, target, class or y, else the last one.
        ignore: columns that the network must not see, as `NAME/NAME`.
        test: share of every class that is held out for the test, the same for every seed.
        test_file: another table that is the test in place of such a share, beside the first one unless its path is
            absolute; its rows without a label are left out.

    Raises:
        InputError: what `load`, `fit` and `encode` refuse, unknown columns, labels that are no classes, fewer than two
            classes, a test without labels.
    """
    train = load(place)
    ignored = _ignored(train, ignore)
    label = label_column(train, label, ignored)
    classes = class_names(train, label)
    y = class_indices(train, label, classes)
    if test_file:
        pool, columns = torch.arange(len(y)), fit(train, label, ignored)
        x = encode(columns, train)
        x_test, y_test = _apart(place.parent / test_file, label, classes, columns)
    else:
        pool, held = hold_out(y, test, rng.key(0))
        columns = fit(train, label, ignored, pool)
        x = encode(columns, train)
        x_test, y_test = x[held], y[held]
    form = Form("table", tuple(x.shape[1:]), classes, {"columns": columns, "label": label})
    return Dataset(x[pool], y[pool], x_test, y_test, presets.default(form), form)


def _apart(place: Path, label: str, classes: Sequence[str], columns: Columns) -> tuple[Tensor, Tensor]:
    """Features and class indices of a table that is the test."""
    test = load(place)
    y = class_indices(test, label, classes)
    known = (y >= 0).nonzero()[:, 0]
    if not len(known):
        raise InputError(f"{place}: no row has a label in {label!r}, so that nothing can be tested: add labels")
    return encode(columns, test)[known], y[known]


def _ignored(table: Table, text: str) -> list[str]:
    pieces, found = text.split("/") if text else [], []
    while pieces:
        # The longest name first: a name may have a "/" of its own.
        parts = [pieces[:count] for count in range(len(pieces), 0, -1)]
        name = next((joined for joined in map("/".join, parts) if joined in table.columns), None)
        if name is None:
            raise unknown(f"ignored column of {table.place}", pieces[0], table.columns)
        found.append(name)
        pieces = pieces[name.count("/") + 1 :]
    return found


def label_column(table: Table, label: str, ignored: Sequence[str]) -> str:
    """The column of the labels: the given one, else one with a usual name, else the last that is not ignored.

    Raises:
        InputError: no such column, or several with a usual name.
    """
    if label in ignored:
        raise InputError(f"label={label} is also in ignore: take it out of one of them")
    if label:
        if label not in table.columns:
            raise unknown(f"label column of {table.place}", label, table.columns)
        return label
    names = [name for name in table.columns if name not in ignored]
    usual = [name for name in names if name.lower() in USUAL]
    if len(usual) > 1:
        raise InputError(
            f"{table.place}: the labels may be in {' or '.join(map(repr, usual))}: give label={usual[0]}, and "
            f"ignore={usual[1]} unless the network may see it"
        )
    if not names:
        raise InputError(f"{table.place}: ignore leaves no column: ignore fewer")
    return usual[0] if usual else names[-1]


def _class_name(text: str) -> str:
    """A number in its shortest form, since 1 becomes 1.0 in many programs once a label is missing."""
    value = parse(text)
    # float64 tells no two whole numbers apart beyond 2⁵³.
    return text if not text or value is None or abs(value) >= 2**53 else repr(value).removesuffix(".0")


def class_names(table: Table, label: str) -> tuple[str, ...]:
    """The classes in a column, sorted; by value if all are numbers.

    Raises:
        InputError: fewer than two, or values that are no classes.
    """
    cells = [_class_name(cell) for cell in table.columns[label] if cell]
    names, where = sorted(set(cells)), f"{table.place}: column {label!r}"
    values = {name: parse(name) for name in names}
    numbers = {name: value for name, value in values.items() if value is not None}
    if len(names) < 2:
        found = f"has one class only, {names[0]!r}" if names else "has no label at all"
        raise InputError(f"{where} {found}: give rows of two classes at least, or choose the column with label=NAME")
    if len(numbers) < len(names):
        if len(names) > QUANTITY and 2 * len(names) > len(cells):
            raise InputError(
                f"{where} has {len(names)} different texts in {len(cells)} labelled rows, which are no classes: "
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


def class_indices(table: Table, label: str, classes: Sequence[str]) -> Tensor:
    """`[rows]`, int64, −1 where there is no label.

    Raises:
        InputError: no such column, or a class that is not among them.
    """
    if label not in table.columns:
        raise InputError(f"{table.place} has no column {label!r} with the labels: add it")
    index = {"": -1, **{name: number for number, name in enumerate(classes)}}
    names = [_class_name(cell) for cell in table.columns[label]]
    for line, name in zip(table.lines, names, strict=True):
        if name not in index:
            raise InputError(
                f"{table.place}, line {line}: class {name!r} is not in the training table ({', '.join(classes[:5])}"
                f"{', …' * (len(classes) > 5)}): correct it, or add rows of it there"
            )
    return torch.tensor([index[name] for name in names])
