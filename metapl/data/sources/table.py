"""One's own table in a file; rows without a label are the unlabelled ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from metapl.data import groups as together
from metapl.data import marker as rule
from metapl.data.augment import presets
from metapl.data.form import Form
from metapl.data.formats import cells, column_notes
from metapl.data.formats.csv_file import Table
from metapl.data.formats.table_file import ENDINGS, load
from metapl.data.formats.tables import Columns, fit
from metapl.data.notes import Note
from metapl.data.sources import parts, table_labels, table_parts
from metapl.data.sources.base import Dataset
from metapl.data.sources.copies import repeated
from metapl.registry.errors import InputError, unknown


def is_table(place: Path) -> bool:
    """Whether a path is a file whose name ends in one of `metapl.data.formats.table_file.ENDINGS`."""
    return place.name.lower().endswith(ENDINGS) and place.is_file()


def table(  # noqa: PLR0913 - one option a parameter
    place: Path,
    *,
    label: str = "",
    ignore: str = "",
    test: float = 0.2,
    test_file: str = "",
    validation_file: str = "",
    split: str = "",
    marker: str = rule.AUTO,
    missing: str = "",
    decimal: str = ".",
    percent: bool = False,
    category: str = "",
    group: str = "",
    header: bool = True,
    encoding: str = "",
    sheet: str = "",
) -> Dataset:
    """A table with a row for each example, see `metapl.data.formats.table_file.load`.

    An empty label makes a row unlabelled, and so does one that `metapl.data.marker.find` finds. Classes are sorted, by
    value if all are numbers, of which 1 and 1.0 are the same. Features are those of
    `metapl.data.formats.tables.encode`: mean, standard deviation and whether numbers are missing come from the training
    pool alone, labelled and unlabelled. Categories, which are inputs, come from the test part of the same file too; in
    `test_file` a category that the table does not have is an error.

    Args:
        place: the file.
        label: the column of the labels; else the one named label, target, class or y, else the last one.
        ignore: columns that the network must not see, as `NAME/NAME`.
        test: share of every class that is held out for the test, the same for every seed, unless there is a test.
        test_file: another table that is the test, beside the first one unless its path is absolute; its rows without a
            label are left out.
        validation_file: another table that is the validation set, in the same way; the test, where there is no other.
        split: the column that says of each row whether it is for train, test or validation, or without a label; else
            one whose name is in `metapl.data.sources.table_parts.USUAL` and whose cells all say so.
        marker: labels that mean no label, as `LABEL/LABEL`; auto for the rule of `metapl.data.marker.find`.
        missing: cells of the features that are no values, as `CELL/CELL`, such as -999.
        decimal: what stands before the decimals of the features, a point or a comma (`decimal=,`).
        percent: whether 12% is the number 12.
        category: columns that are categories though they hold numbers, as `NAME/NAME`.
        group: a column whose rows of one value stay on one side of the test and of the validation that are held out,
            such as the patient; the network does not see it.
        header: whether the first line of a CSV file names the columns; else they are `column1`, `column2`, ….
        encoding: of a CSV file, such as cp1252; else UTF-8, or UTF-16 where it begins so.
        sheet: of a workbook; else the only one that has rows.

    Raises:
        InputError: what `load`, `fit` and `encode` refuse, unknown columns, labels that are no classes, fewer than two
            classes, a test without labels.
    """
    how = cells.Reading(tuple(filter(None, missing.split("/"))), _point(decimal), percent, header, encoding, sheet)
    whole = load(place, header, encoding, sheet)
    by = table_parts.column(whole, split, _named(whole, "ignored", ignore))
    group = "".join(_named(whole, "group", group)[:1])
    ignored = [*_named(whole, "ignored", ignore), *filter(None, (by, group))]
    labels = table_labels.find(whole, label, ignored, marker)
    y = table_parts.hidden(whole, by, table_labels.indices(whole, labels))
    own = table_parts.Given(cells.tidy(whole, how, (labels.column, by)), y, table_parts.rows(whole, by, y))
    files: dict[parts.Name, str] = {"test": test_file, "validation": validation_file}
    more = [_apart(place.parent / file, part, labels, how) for part, file in files.items() if file]
    notes = [*labels.notes, *table_parts.notes(own, by), *table_parts.complete(own, more, test, group)]
    learnt = torch.cat([own.rows[part] for part in ("train", "validation") if part in own.rows])
    columns = fit(own.table, labels.column, ignored, learnt, _named(whole, "category", category))
    taken = {**dict.fromkeys(ignored, "ignored"), by: "split", group: "group"}
    notes += _said(own, columns, labels, taken)
    train, held_out, validation = table_parts.gather(columns, [own, *more])
    details = {"columns": columns, "label": labels.column, **_further(how, labels)}
    form = Form("table", tuple(train.x.shape[1:]), labels.classes, details)
    given = len(train.y) + torch.arange(len(validation.y)) if len(validation.y) else None
    x, y = torch.cat([train.x, validation.x]), torch.cat([train.y, validation.y])
    company = together.extended(table_parts.groups(own, group), len(y))
    notes += repeated(x, held_out.x)
    names = (*train.names, *validation.names)
    augment = presets.default(form)
    return Dataset(x, y, held_out.x, held_out.y, augment, form, given, company, tuple(notes), names=names)


def _said(own: table_parts.Given, columns: Columns, labels: table_labels.Labels, taken: dict[str, str]) -> list[Note]:
    """What the columns were taken for."""
    taken = {**taken, labels.column: f"label, {len(labels.classes)} classes"}
    told = column_notes.tells(own.table, labels.column, labels.classes, own.y.tolist(), columns)
    return [*column_notes.describe(own.table, columns, taken), *told]


def _point(decimal: str) -> str:
    """A comma separates the options too, so that nothing is left of `decimal=,`."""
    if decimal in (".", ",", ""):
        return decimal or ","
    raise InputError(f"decimal={decimal} must be a point or a comma: write decimal=, for a comma")


def _further(how: cells.Reading, labels: table_labels.Labels) -> dict[str, Any]:
    """What more is to be known of a table, if anything is, to read fresh rows of it."""
    found = {"reading": how.to_json(), "marker": sorted(labels.none)}
    return {name: value for name, value in found.items() if value}


def _apart(place: Path, part: parts.Name, labels: table_labels.Labels, how: cells.Reading) -> table_parts.Given:
    """A table that is the test or the validation set."""
    table = cells.tidy(load(place, how.header, how.encoding, how.sheet), how, (labels.column,))
    y = table_labels.indices(table, labels)
    known = (y >= 0).nonzero()[:, 0]
    if not len(known):
        raise InputError(f"{place}: no row has a label in {labels.column!r}, so that nothing can be tested: add labels")
    return table_parts.Given(table, y, {part: known})


def _named(table: Table, option: str, text: str) -> list[str]:
    pieces, found = text.split("/") if text else [], []
    while pieces:
        # The longest name first: a name may have a "/" of its own.
        parts = [pieces[:count] for count in range(len(pieces), 0, -1)]
        name = next((joined for joined in map("/".join, parts) if joined in table.columns), None)
        if name is None:
            raise unknown(f"{option} column of {table.place}", pieces[0], table.columns)
        found.append(name)
        pieces = pieces[name.count("/") + 1 :]
    return found
