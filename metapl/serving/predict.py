"""What a trained network says of fresh examples, as the rows of a CSV file."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from metapl.data import inputs
from metapl.data.examples import Examples, Inputs, Problems, subset
from metapl.data.form import Form
from metapl.data.formats.cells import reading
from metapl.data.formats.csv_file import DELIMITERS, Table
from metapl.data.formats.table_file import load
from metapl.data.loader import in_order
from metapl.embedding import applied
from metapl.evaluation import metrics
from metapl.files.escape import cell
from metapl.registry.errors import InputError
from metapl.serving.labels import indices, known
from metapl.training.run_folder import Serving


class Count(NamedTuple):
    """How many rows were written, how many of them came with a label, and how many of these were predicted right."""

    rows: int
    labelled: int
    right: int
    mistakes: Counter[tuple[str, str]]
    """How often which class was taken for which."""
    problems: Problems
    """What was wrong with which rows."""


class _Given(NamedTuple):
    """What stands to the left of the predictions."""

    header: list[str]
    rows: Iterable[Sequence[str]]
    labels: Iterable[str]
    """The class of each row, empty where nobody knows."""


class Writable(Protocol):
    """Where text can be written."""

    def write(self, text: str, /) -> object:
        """Write it."""
        ...


def probabilities(serving: Serving, x: Examples, batch: int = 256) -> Iterator[Tensor]:
    """Softmax of the logits over the temperature of the network, `[at most batch, classes]`, of stored examples.

    They are float32 on the CPU, in the order of the examples. Computed in float64 and rounded once, so that they sum
    to 1 within 2⁻²⁴.
    """
    return (torch.softmax(part / serving.temperature, -1).float() for part in logits(serving, x, batch))


def logits(serving: Serving, x: Examples, batch: int = 256) -> Iterator[Tensor]:
    """The logits, `[at most batch, classes]`, float64 on the CPU, of stored examples in their order.

    Examples that are not in memory are read batch by batch.
    """
    prepare = inputs.prepare(serving.form)
    for index in torch.arange(len(x)).split(batch):
        part = in_order(subset(x, index), serving.device, prepare, batch)
        yield metrics.predict(serving.model, *serving.network, part).double().cpu()


def evaluate(
    serving: Serving, places: Sequence[Path], batch: int = 256, problems: Problems | None = None
) -> tuple[dict[str, float], int]:
    """The metrics of a network on fresh examples that came with labels, and how many these are.

    Args:
        serving: the network.
        places: of the examples, as `metapl.embedding.applied.read` takes them; labels are found as by
            `metapl.serving.labels.known`.
        batch: how many examples are predicted at a time.
        problems: where it is noted which examples cannot be read, and are left out.

    Raises:
        InputError: what the readers refuse, or no label that is a class of the run.
    """
    problems = Problems({}, {}) if problems is None else problems
    found = applied.read(serving.form, places, serving.device, problems)
    y = indices(serving.form, known(serving.form, places, found.names))
    labelled = (y >= 0).nonzero()[:, 0]
    if not len(labelled):
        classes = ", ".join(serving.form.classes[:5])
        raise InputError(
            f"{' '.join(map(str, places))}: no labels of the classes {classes}: give folders called so, a table with "
            "the column of the labels, or an .npz with y"
        )
    every = torch.cat(list(logits(serving, subset(found.x, labelled), batch)))
    read = torch.tensor([place not in problems.unread for place in labelled.tolist()])
    every, labelled = every[read], labelled[read]
    return metrics.evaluate(every, y[labelled]), len(labelled)


def write(file: Writable, serving: Serving, places: Sequence[Path], batch: int = 256, confident: float = 0.0) -> Count:
    """Write a row for each example in files and folders, in their order, as it is predicted.

    The columns of images and arrays are `name`, `prediction` (the class with the largest probability), `confidence`
    (that probability) and `p(CLASS)` for each class. Rows of tables keep their own columns, as they are in the file, in
    place of `name`; of several tables, which must have the same columns, `name` says which file and row. Where a column
    of the table has one of our names already, ours is `prediction_2` and so on. A text that a spreadsheet would run as
    a formula has an apostrophe before it, see `metapl.files.escape.cell`. Nine significant digits give every float32
    back as it was. The last column, `problem`, says what is wrong with a row: an example that cannot be read has no
    prediction, one with a category that is new has one by the rest.

    Args:
        file: where to write, open for text.
        serving: the network.
        places: of fresh examples, as `metapl.embedding.applied.read` takes them.
        batch: how many examples are predicted at a time.
        confident: rows whose confidence is less are left out; where it is above 0, also those without a prediction.

    Raises:
        InputError: what the readers refuse, which for images may be after some rows; tables of different columns.
    """
    problems = Problems({}, {})
    found = applied.read(serving.form, places, serving.device, problems)
    labels = known(serving.form, places, found.names)
    given = _table(serving.form, places, found.names, labels) if serving.form.kind == "table" else _named(found, labels)
    classes = serving.form.classes
    added = ["prediction", "confidence", *(f"p({name})" for name in classes), "problem"]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(cell, [*given.header, *(_free(name, given.header) for name in added)]))
    labelled, right, left_out = 0, 0, 0
    mistakes: Counter[tuple[str, str]] = Counter()
    answers = (values for some in probabilities(serving, found.x, batch) for values in some.tolist())
    for place, (values, cells, label) in enumerate(zip(answers, given.rows, given.labels, strict=True)):
        prediction, *numbers = _said(values, problems, place, classes)
        # As it is written: a bound that was copied from a row keeps the row.
        if confident and (not prediction or float(numbers[0]) < confident):
            left_out += 1
            continue
        writer.writerow([*map(cell, (*cells, prediction)), *numbers])
        if prediction:
            labelled += bool(label)
            right += label == prediction
            mistakes.update([(label, prediction)] if label not in ("", prediction) else [])
    return Count(len(found.x) - left_out, labelled, right, mistakes, problems)


def _said(values: Sequence[float], problems: Problems, place: int, classes: Sequence[str]) -> list[str]:
    """The prediction, the numbers and the problem of an example; no prediction of one that cannot be read."""
    if (problem := problems.unread.get(place)) is not None:
        return [*[""] * (len(classes) + 2), cell(problem)]
    confidence = max(values)
    numbers = (f"{value:.9g}" for value in (confidence, *values))
    return [classes[values.index(confidence)], *numbers, cell(problems.doubtful.get(place, ""))]


def _named(found: Inputs, labels: Sequence[str]) -> _Given:
    return _Given(["name"], ([name] for name in found.names), labels)


def _table(form: Form, places: Sequence[Path], names: Sequence[str], labels: Sequence[str]) -> _Given:
    how = reading(form.details.get("reading", {}))
    tables = [load(place, how.header, how.encoding, how.sheet) for place in places]
    header = list(tables[0].columns)
    for table in tables:
        if table.columns.keys() != set(header):
            raise InputError(f"{table.place} has other columns than {tables[0].place}: predict the two apart")
    rows: list[Sequence[str]] = []
    for place, table in zip(places, tables, strict=True):
        order = [list(table.columns).index(name) for name in header]
        plain = how.header and not how.encoding
        rows += ([cells[column] for column in order] for cells in _as_written(place, table, plain))
    if len(places) == 1:
        return _Given(header, rows, labels)
    named = ([name, *cells] for name, cells in zip(names, rows, strict=True))
    return _Given([_free("name", header), *header], named, labels)


def _as_written(place: Path, table: Table, plain: bool) -> list[list[str]]:
    """The rows of a plain CSV file as they are in it, where `load` tidies blanks and empties what means missing."""
    if not plain or place.suffix.lower() not in (".csv", ".tsv"):
        return [list(cells) for cells in zip(*table.columns.values(), strict=True)]
    for delimiter in DELIMITERS:
        with suppress(csv.Error), place.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            header, *rows = (cells for cells in reader if any(cell.strip() for cell in cells))
            if [" ".join(name.split()) for name in header] == list(table.columns):
                return rows
    raise InputError(f"{place} has changed while it was read: run it again")


def _free(name: str, taken: Collection[str]) -> str:
    """The name, or with the first number from 2 on that makes it one that is not taken."""
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in taken)
