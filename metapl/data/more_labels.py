"""Labels that come later, in files of their own: for examples of the training pool by their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import torch

from metapl.data import marker
from metapl.data.formats import table_file
from metapl.data.formats.csv_file import Table
from metapl.data.notes import CAREFUL, Note, some
from metapl.data.sources.base import Dataset
from metapl.registry.errors import InputError, unknown

NAMES = ("name", "filename", "file", "image", "path", "id")
"""What the column of names is called; else it is the first one."""

PREDICTION = "prediction"
"""The column of pseudo labels, as `metapl predict` writes it: they never take the place of a label."""

LABELS = ("label", "class", "target", PREDICTION)
"""What the column of labels is called, the first of them that there is; else it is the last one."""


def apply(data: Dataset, text: str) -> Dataset:
    """A data set with the labels of some files.

    A file is a table with a column of names, as `metapl suggest` writes them, or as the last part of a path that no
    other example shares, and one of labels. Rows without a label count for nothing. A label that an example has already
    is corrected, unless the file has pseudo labels, in a column `prediction`. Of several files the last one to name an
    example counts.

    Args:
        data: whose training pool has examples without labels.
        text: the files, separated as in PATH.

    Raises:
        InputError: a file that cannot be read, a class that the data does not have, names of which none is in the pool.
    """
    by_name = _by_name(data)
    found: dict[int, int] = {}
    notes = []
    for place in filter(None, text.split(os.pathsep)):
        given, are_guesses = _read(Path(place).expanduser(), data)
        known = {by_name[name]: label for name, label in given.items() if name in by_name}
        if are_guesses and known:
            known = {at: label for at, label in known.items() if data.y[at] < 0 and at not in found}
        if not known and not are_guesses:
            raise InputError(
                f"more_labels = {place}: none of its {len(given):,} names with a label is in the training pool, where "
                f"{data.name(0)!r} is: fill in labels of examples that metapl suggest lists",
                "more_labels",
            )
        absent = [name for name in given if name not in by_name]
        corrected = sum(int(data.y[place]) not in (-1, label) for place, label in known.items())
        more = sum(int(data.y[at]) < 0 and at not in found for at in known)
        said = f"{more:,} more from {Path(place).name}" + f", and {corrected:,} corrected" * bool(corrected)
        notes.append(Note("labels", said))
        if not more and not corrected and not are_guesses:
            notes.append(Note(CAREFUL, f"{Path(place).name} has no label that was not known: fill in its column label"))
        notes += [Note("left out", f"{len(absent):,} labels of other names: {some(absent)}")] if absent else []
        found |= known
    positions = torch.tensor(sorted(found), dtype=torch.int64)
    y = data.y.clone()
    y[positions] = torch.tensor([found[place] for place in positions.tolist()], dtype=y.dtype)
    return data._replace(y=y, notes=(*data.notes, *notes), later=positions)


def _by_name(data: Dataset) -> Mapping[str, int]:
    """The examples by their names, and by the last parts of these that only one of them has."""
    names = [data.name(place) for place in range(len(data.y))]
    last = [PurePosixPath(name).name for name in names]
    often = Counter(last)
    return {name: place for place, name in enumerate(last) if often[name] == 1} | {
        name: place for place, name in enumerate(names)
    }


def _read(place: Path, data: Dataset) -> tuple[dict[str, int], bool]:
    """The class index of each name that has a label, and whether they are predictions."""
    table = table_file.load(place)
    named = _column(table, NAMES, 0)
    labelled = _column(table, LABELS, -1)
    index = {name: at for at, name in enumerate(data.form.classes)}
    found = {}
    for line, name, label in zip(table.lines, table.columns[named], table.columns[labelled], strict=True):
        if not label or (label not in index and marker.is_sure(label)):
            continue
        if label not in index:
            raise unknown(f"class in {place}, line {line}", label, data.form.classes)
        found[name.removeprefix("'")] = index[label]
    return found, labelled.lower() == PREDICTION


def _column(table: Table, usual: tuple[str, ...], otherwise: int) -> str:
    by_small = {name.lower(): name for name in reversed(table.columns)}
    return next((by_small[name] for name in usual if name in by_small), list(table.columns)[otherwise])
