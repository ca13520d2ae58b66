"""The page about a data set: what it was taken for, what was left out, what is doubtful, and a look at the examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metapl.data.augment import presets
from metapl.data.examples import Examples, take
from metapl.data.notes import CAREFUL, COLUMN, Note
from metapl.data.sources import Dataset
from metapl.files.table import Column, Table, percent, whole
from metapl.reporting import render
from metapl.reporting.blocks import (
    Block,
    Card,
    Code,
    Folded,
    Gallery,
    Head,
    Paragraph,
    Rows,
    Section,
    Thumbnail,
    Tile,
    Tiles,
    Words,
)
from metapl.reporting.mistakes import CRISP, drawable, levels, png

OF_A_CLASS = 6
"""Images that are shown of a class, at most."""

SHOWN = 60
"""Images that are shown of all classes together."""

FEW = 20
"""Classes up to which all are listed at once."""


KINDS = {"images": "images", "table": "a table", "arrays": "numbers", "features": "features of a network"}
"""What data may be, by the kind of its form."""


def page(what: str, data: Dataset, origin: str = "") -> str:
    """The HTML page about a data set; of images some of each class are read for it.

    Args:
        what: the data set as somebody has named it, as for `metapl train --data`.
        data: the data set.
        origin: where it lies and how it was read, in words; empty for data that comes with metapl.
    """
    dtype = str(data.x.dtype).removeprefix("torch.")
    facts = {"an example": f"{'×'.join(map(str, data.form.shape))} {dtype}"}
    if origin:
        facts = {"read from": origin, **facts, "views": presets.description(data.form)}
    head = Head("Data", f"It was taken for {KINDS[data.form.kind]}.", facts, ("Data ", Code(what)))
    columns = [note for note in data.notes if note.about == COLUMN]
    pictures = drawable(data.form)
    sections = [
        Section("In short", _short(data)),
        Section("What was found", _found(data.notes)),
        *([Section("Columns", [Card("", [Rows(_columns(columns))])])] if columns else []),
        Section("Classes", _classes(data)),
        *([Section("Examples", _examples(data))] if pictures else []),
    ]
    return render.page(head, sections)


def _short(data: Dataset) -> list[Block]:
    unknown, given = int((data.y < 0).sum()), 0 if data.validation is None else len(data.validation)
    known = len(data.y) - unknown - given
    below = f"{whole(unknown)} have no label" if unknown else "all have a label"
    found = [
        Tile("to train on", whole(len(data.y) - given), "", f"{below}, {whole(known)} have one" if unknown else below),
        Tile("to test", whole(len(data.y_test)), "", "never trained on"),
        Tile("classes", whole(data.classes), "", f"{whole(given)} examples for validation" if given else ""),
    ]
    return [Tiles(found)]


def _found(notes: Sequence[Note]) -> list[Block]:
    """What the source says, by what it is about; warnings first."""
    careful = [Paragraph(note.text, "warning") for note in notes if note.about == CAREFUL]
    others: dict[str, list[str]] = {}
    for note in notes:
        if note.about not in (CAREFUL, COLUMN):
            others.setdefault(note.about, []).append(note.text)
    said = [Card("", [Words({about: "; ".join(texts) for about, texts in others.items()})])] if others else []
    nothing = [] if careful or said else [Paragraph("Nothing was left out, and nothing is doubtful.")]
    return [*careful, *said, *nothing]


def _columns(notes: Sequence[Note]) -> Table:
    rows = [(note.of, note.text.removeprefix(f"{note.of!r}: ")) for note in notes]
    return Table([Column("column", look="name"), Column("taken for")], rows, "columns of the table")


def _classes(data: Dataset) -> list[Block]:
    given = torch.zeros(len(data.y), dtype=torch.bool)
    if data.validation is not None:
        given[data.validation] = True
    parts = {"training": data.y[~given], "validation": data.y[given], "test": data.y_test}
    counts = {name: _counts(y, data.classes) for name, y in parts.items() if len(y)}
    of = max(sum(counts["training"]), 1)
    rows: list[tuple[str | int | float, ...]] = [
        (name, *(found[place] for found in counts.values()), counts["training"][place] / of)
        for place, name in enumerate(data.form.classes)
    ]
    columns = [
        Column("class", look="name"),
        *(Column(name, whole, "figure") for name in counts),
        Column("%", lambda share: percent(share, 1), "meter"),
    ]
    every = Rows(Table(columns, rows, "labelled examples by class"))
    note = Paragraph("Labelled examples of each class, and its share of those to train on.")
    if data.classes <= FEW:
        return [note, Card("", [every])]
    least, most = min(counts["training"]), max(counts["training"])
    text = f"{whole(least)} to {whole(most)} labelled training examples of each of {whole(data.classes)} classes."
    return [Card("", [Paragraph(text), Folded(f"All {data.classes} classes", [every])])]


def _counts(y: Tensor, classes: int) -> list[int]:
    found: list[int] = torch.bincount(y[y >= 0].cpu(), minlength=classes).tolist()
    return found


def _examples(data: Dataset) -> list[Block]:
    """Some images of each class, and some without a label, evenly spaced over the training pool."""
    labels = [*range(data.classes), *([-1] if bool((data.y < 0).any()) else [])]
    each = max(min(OF_A_CLASS, SHOWN // len(labels)), 1)
    chosen = torch.cat([_spaced((data.y == label).nonzero()[:, 0], each) for label in labels[:SHOWN]])
    text = f"Up to {each} of each class, evenly spaced, as a network gets them before any view is drawn."
    if len(labels) > SHOWN:
        text += f" The first {SHOWN} of {whole(len(labels))} classes are shown."
    return [Paragraph(text), Card("", [Gallery(_thumbnails(data, data.x, chosen))])]


def _spaced(places: Tensor, count: int) -> Tensor:
    return places[torch.arange(min(count, len(places))) * len(places) // max(min(count, len(places)), 1)]


def _thumbnails(data: Dataset, x: Examples, chosen: Tensor) -> list[Thumbnail]:
    height, width = data.form.shape[1:]
    crisp = max(height, width) <= CRISP
    found = []
    for place, image in zip(chosen.tolist(), levels(take(x, chosen, torch.device("cpu")), data.form), strict=True):
        label = int(data.y[place])
        truth = data.form.classes[label] if label >= 0 else "no label"
        name = data.name(place)
        found.append(Thumbnail(png(image), (width, height), crisp, f"{name}: {truth}", truth, "", "", name))
    return found
