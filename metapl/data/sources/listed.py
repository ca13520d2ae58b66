"""One's own images, with their labels in a file beside them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from metapl.data import marker as rule
from metapl.data.formats import csv_file, images, names, one_hot, table_file
from metapl.data.formats.csv_file import Table
from metapl.data.formats.decode import ENDINGS
from metapl.data.formats.files import holds, shown, subfolders
from metapl.data.notes import Note, some
from metapl.data.sources import labelled_files, parts, pools, table_labels, table_parts
from metapl.data.sources.base import Dataset
from metapl.registry.errors import InputError, unknown

LISTS = (".csv", ".tsv", ".txt", ".xlsx", ".xls", ".ods")
"""Of the names of files with labels."""

FOUND = 0.5
"""Share of the cells of a column that must name images of the folder."""


def _lists(place: Path) -> list[Path]:
    return sorted(file for file in place.iterdir() if file.suffix.lower() in LISTS and file.name[0] != ".")


def is_listed(place: Path) -> bool:
    """Whether a folder has a file of labels, and images that are in no folders of classes."""
    if not place.is_dir() or not _lists(place):
        return False
    inside = [one for one in subfolders(place) if parts.name_of(one.name) is None]
    classes = [one for one in inside if holds(one, ENDINGS)]
    apart = [one for one in subfolders(place) if parts.name_of(one.name) is not None]
    flat = any(holds(one, ENDINGS) for one in (place, *apart))
    return (flat and not classes) or (len(classes) == 1 and not flat)


def listed(  # noqa: PLR0913 - one option a parameter
    place: Path,
    *,
    labels: str = "",
    file: str = "",
    label: str = "",
    split: str = "",
    size: int = 0,
    channels: int = 0,
    test: float = 0.2,
    marker: str = rule.AUTO,
    white: int = 0,
    copies: str = "auto",
    group: str = "",
    skip_bad: bool = False,
) -> Dataset:
    """A folder of images, and a file that says which class each of them is of.

    The file is a table with a column of names, such as `a/1.jpg`, `1.jpg` or `1`, and one of labels. Its first line
    names the columns; a file of two columns may do without, and blanks may separate them in a `.txt` file. Images that
    it does not name, or names without a label, have no label, and follow the others in the training pool. A column may
    say what each image is for, see `metapl.data.sources.table_parts.column`; images in folders `test` that nobody names
    are left out.

    Args:
        place: the folder.
        labels: the file, below the folder or by its absolute path; else the only one in the folder.
        file: the column of the names; else the one that names most images.
        label: the column of the labels; else as of `metapl.data.sources.table.table`.
        split: as of `metapl.data.sources.table.table`.
        size: as of `metapl.data.sources.folder.folder`.
        channels: the same.
        test: the same.
        marker: the same, of labels.
        white: the same.
        copies: the same.
        group: the same.
        skip_bad: the same.

    Raises:
        InputError: no file of labels or several, no column of names, an image named twice, and what
            `metapl.data.sources.table_labels.find` and `metapl.data.sources.pools.of_files` refuse.
    """
    where = place / labels if labels else _only(place)
    found = images.find(place)
    named_by = names.Names(found, place)
    read = _read(where, named_by)
    named = _column_of_names(read, file, named_by)
    read, said = (read, []) if label else one_hot.gathered(read, [named])
    by = table_parts.column(read, split, [named])
    known = table_labels.find(read, label, [named, *([by] if by else [])], marker)
    y = table_parts.hidden(read, by, table_labels.indices(read, known))
    owners = _owners(named_by, read.columns[named])
    if any(owner and not named_by.find(cell) for owner, cell in zip(owners, read.columns[named], strict=True)):
        before = "/".join(names.above(read.columns[named]))
        said = [*said, Note("labels", f"names of images are taken without {before!r} before them")]
    _require_once(read, named, owners)
    rest = _rest(found, owners, place)
    sets = {part: _labelled(owners, y, index) for part, index in table_parts.rows(read, by, y).items()}
    train = pools.Labelled([*sets["train"].files, *rest], torch.cat([sets["train"].y, torch.full((len(rest),), -1)]))
    notes = [Note("labels", f"from {where.name}: column {named!r} names the images"), *said, *known.notes]
    if "validation" in sets and "test" not in sets:
        notes.append(Note("test", "the validation set is the test set, since there is no other"))
        sets["test"] = sets.pop("validation")
    wanted = pools.Wanted(size, channels, test, [], white, copies, group, skip_bad, place)
    data = pools.of_files(train, sets.get("test"), sets.get("validation"), known.classes, wanted)
    absent = [cell for cell, owner in zip(read.columns[named], owners, strict=True) if owner is None]
    unseen = len(found) - len(rest) - (len(owners) - len(absent))
    notes += [*_left(absent, unseen, len(rest), where.name), *labelled_files.no_images([place], LISTS)]
    return data._replace(notes=(*notes, *data.notes))


def given(place: Path) -> dict[Path, str]:
    """The label of each image below a folder by the file of labels in it; nothing where it is no such folder.

    What `listed` would refuse has no labels here, since those who only look at images may have other files beside them.
    """
    if not is_listed(place):
        return {}
    with suppress(InputError):
        named_by = names.Names(images.find(place), place)
        read = _read(_only(place), named_by)
        named = _column_of_names(read, "", named_by)
        read, _ = one_hot.gathered(read, [named])
        known = table_labels.find(read, "", [named], rule.AUTO)
        labels = [table_labels.class_name(cell) for cell in read.columns[known.column]]
        pairs = zip(_owners(named_by, read.columns[named]), labels, strict=True)
        return {owner: label for owner, label in pairs if owner and label in known.classes}
    return {}


def _owners(named_by: names.Names, cells: Sequence[str]) -> list[Path | None]:
    before = names.above(cells)
    return [named_by.find(cell, before) for cell in cells]


def _labelled(owners: Sequence[Path | None], y: Tensor, index: Tensor) -> pools.Labelled:
    """The images of some rows, by their names first, as `metapl.data.sources.folder.folder` has them; no label last."""
    have = [(owner, int(y[row])) for row in index.tolist() if (owner := owners[row]) is not None]
    have.sort(key=lambda one: (one[1] < 0, one[0].name, one[1], str(one[0])))
    return pools.Labelled([path for path, _ in have], torch.tensor([label for _, label in have], dtype=torch.int64))


def _left(absent: Sequence[str], unseen: int, rest: int, name: str) -> list[Note]:
    notes = []
    if absent:
        notes.append(Note("left out", f"{len(absent):,} rows whose images are not there: {some(absent)}"))
    if unseen:
        notes.append(Note("left out", f"{unseen:,} images of a test that {name} does not name"))
    if rest:
        notes.append(Note("labels", f"{rest:,} images that {name} does not name have none"))
    return notes


def _only(place: Path) -> Path:
    lists = _lists(place)
    if len(lists) != 1:
        names = f"{some([one.name for one in lists])} in it" if lists else "no file of labels in it"
        raise InputError(f"{shown(place)}: {names}: say which one with labels=FILE")
    return lists[0]


def _read(where: Path, named_by: names.Names) -> Table:
    """The table, whose first line may be a row already, and whose columns blanks may separate."""
    if not where.is_file():
        raise InputError(f"{shown(where)}: no such file: name the file of labels with labels=FILE")
    if where.suffix.lower() in table_file.BY_POLARS:
        return table_file.load(where)
    rows, delimiter = csv_file.rows(where, blanks=where.suffix.lower() == ".txt")
    first = rows[0][1] if rows else []
    if len(first) == 2 and any(map(named_by.find, first)):
        rows = [(0, ["file", "label"] if named_by.find(first[0]) else ["label", "file"]), *rows]
    return csv_file.table(where, rows, delimiter)


def _column_of_names(read: Table, file: str, named_by: names.Names) -> str:
    if file:
        if file not in read.columns:
            raise unknown(f"file column of {read.place}", file, read.columns)
        return file
    counts = {name: sum(map(bool, _owners(named_by, cells))) for name, cells in read.columns.items()}
    best = max(counts, key=counts.__getitem__)
    if counts[best] < FOUND * len(read.lines):
        raise InputError(
            f"{read.place}: no column names the images of the folder, {best!r} has {counts[best]} of "
            f"{len(read.lines)}: give file=COLUMN, or the folder with the images"
        )
    return best


def _require_once(read: Table, named: str, owners: Sequence[Path | None]) -> None:
    seen: dict[Path, int] = {}
    for row, owner in enumerate(owners):
        if owner is not None and owner in seen:
            raise InputError(
                f"{read.place}, line {read.lines[row]}: {read.columns[named][row]!r} is in line "
                f"{read.lines[seen[owner]]} too: one label an image"
            )
        if owner is not None:
            seen[owner] = row


def _rest(found: Sequence[Path], owners: Sequence[Path | None], place: Path) -> list[Path]:
    """The images that nobody names, but for those in folders of a test."""
    known = set(owners)

    def is_test(path: Path) -> bool:
        folders = path.relative_to(place).parts[:-1]
        return any(parts.name_of(one) in ("test", "validation") for one in folders)

    return [path for path in found if path not in known and not is_test(path)]
