"""Which rows of a table are for training, for the test and for validation, where a column says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from metapl.core import rng
from metapl.data import groups as together
from metapl.data.formats.csv_file import Table
from metapl.data.formats.tables import Columns, encode
from metapl.data.notes import Note
from metapl.data.sources.held_out import hold_out
from metapl.data.sources.parts import Name, name_of
from metapl.registry.errors import InputError, unknown

USUAL = ("split", "subset", "partition", "fold", "set", "usage")
"""What such a column is called, in small letters or large; its cells must all name parts, train among them."""

Rows: TypeAlias = dict[Name, Tensor]
"""The rows of each part, int64, ascending; a part without rows is not in it."""


def column(table: Table, name: str, ignored: Sequence[str]) -> str:
    """The column that says what each row is for; empty where there is none.

    Raises:
        InputError: a column of that name that is not there or whose cells name no parts.
    """
    if name:
        if name not in table.columns:
            raise unknown(f"split column of {table.place}", name, table.columns)
        for line, cell in zip(table.lines, table.columns[name], strict=True):
            if cell and name_of(cell) is None:
                raise InputError(
                    f"{table.place}, line {line}: column {name!r} has {cell!r}, which names no part: write train, "
                    "test, validation or unlabelled"
                )
        return name
    found = (one for one in table.columns if one.lower() in USUAL and one not in ignored)
    return next((one for one in found if _says(set(table.columns[one]))), "")


def _says(cells: set[str]) -> bool:
    parts = {name_of(cell) for cell in cells if cell}
    return None not in parts and "train" in parts and len(parts) > 1


def hidden(table: Table, by: str, y: Tensor) -> Tensor:
    """The class of each row, −1 for those that are to be learnt from without labels, whatever their labels are."""
    if not by:
        return y
    return torch.where(torch.tensor([name_of(cell) == "unlabelled" for cell in table.columns[by]]), -1, y)


def rows(table: Table, by: str, y: Tensor) -> Rows:
    """The rows of each part; all of them are to train on where no column says otherwise.

    Args:
        table: the table.
        by: the column, or nothing.
        y: the class of each row, −1 where there is none: such rows are no part of the test and of validation.

    Raises:
        InputError: no row to train on.
    """
    if not by:
        return {"train": torch.arange(len(y))}
    names = [name_of(cell) or "train" for cell in table.columns[by]]
    parts: dict[Name, Tensor] = {}
    for part in ("train", "test", "validation"):
        known = [name == part or (part == "train" and name == "unlabelled") for name in names]
        chosen = (torch.tensor(known) & ((y >= 0) | (part == "train"))).nonzero()[:, 0]
        parts |= {part: chosen} if len(chosen) else {}
    if "train" not in parts:
        raise InputError(f"{table.place}: no row of column {by!r} is to train on: write train, or give another split=")
    return parts


class Given(NamedTuple):
    """A table with the class of each row and the rows of each part."""

    table: Table
    y: Tensor
    rows: Rows


class Part(NamedTuple):
    """Features `[rows, features]`, class indices `[rows]` and names of some rows."""

    x: Tensor
    y: Tensor
    names: tuple[str, ...]


def groups(own: Given, by: str) -> Tensor | None:
    """Of the rows to train on, by their values in a column; None without one."""
    if not by:
        return None
    cells = own.table.columns[by]
    return together.numbered([cells[row] or None for row in own.rows["train"].tolist()])


def complete(own: Given, more: Sequence[Given], share: float, group: str = "") -> list[Note]:
    """Give the rows a test, where they have none: the validation set, or a share that is held out; and say so.

    Args:
        own: the training table.
        more: other tables, each for one part.
        share: of every class.
        group: a column whose rows of one value stay together.

    Raises:
        InputError: two sets for one part, and what `hold_out` refuses.
    """
    twice = [part for one in more for part in one.rows if part in own.rows]
    if twice:
        raise InputError(f"{own.table.place}: two sets for the {twice[0]}, by its column and by a file: leave one out")
    held = [one for one in (own, *more) if "test" in one.rows]
    if held:
        return []
    for one in (own, *more):
        if "validation" in one.rows:
            one.rows["test"] = one.rows.pop("validation")
            return [Note("test", "the validation set is the test set, since there is no other")]
    rows, company = own.rows["train"], groups(own, group)
    kept, out = hold_out(own.y[rows], share, rng.key(0), company)
    own.rows["train"], own.rows["test"] = rows[kept], rows[out]
    left = len(rows) - len(kept) - len(out)
    notes = [] if company is None else [Note("groups", f"{len(company.unique()):,} by {group!r}, each on one side")]
    return notes + ([Note("left out", f"{left:,} rows without a label of groups in the test")] if left else [])


def gather(columns: Columns, tables: Sequence[Given]) -> tuple[Part, Part, Part]:
    """The training, the test and the validation part of some tables."""
    x = [encode(columns, one.table) for one in tables]
    none = torch.zeros(0, dtype=torch.int64)

    def part(name: Name) -> Part:
        index = [one.rows.get(name, none) for one in tables]
        found = [(features[rows], one.y[rows]) for features, one, rows in zip(x, tables, index, strict=True)]
        named = [(one.table.place, row + 1) for one, rows in zip(tables, index, strict=True) for row in rows.tolist()]
        own = tables[0].table.place
        names = (f"row {row}" if place == own else f"{place}:{row}" for place, row in named)
        features, y = (torch.cat(both) for both in zip(*found, strict=True))
        return Part(features, y, tuple(names))

    return part("train"), part("test"), part("validation")


def notes(own: Given, by: str) -> list[Note]:
    """What a column of parts has said."""
    if not by:
        return []
    counted = ", ".join(f"{len(index):,} {part}" for part, index in own.rows.items())
    left = len(own.y) - sum(map(len, own.rows.values()))
    found = [Note("split", f"by column {by!r}: {counted}")]
    return found + ([Note("left out", f"{left:,} rows for the test or validation without a label")] if left else [])
