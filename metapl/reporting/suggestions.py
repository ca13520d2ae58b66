"""The page of what to label next in a run: unlabelled examples, and given labels that the network doubts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metapl.data.form import Form
from metapl.data.formats.tables import layout
from metapl.files.table import Column, Table, percent, whole
from metapl.reporting import render
from metapl.reporting.blocks import Block, Card, Code, Gallery, Head, Paragraph, Rows, Section, Thumbnail
from metapl.reporting.mistakes import CRISP, deviations, drawable, levels, png
from metapl.serving.suggest import Row, Suggested

WHY = {
    "margin": "the two most probable classes are close",
    "entropy": "many classes are probable",
    "disagreement": "the networks of the run say different things",
    "diverse": "the network is unsure, and they differ from each other",
    "effect": "whatever the label, it moves the loss on the labelled examples far",
}
"""What the strategies look for, in words."""


def page(run: Path, found: Suggested) -> str:
    """The HTML page of what `metapl.serving.suggest.suggest` has found in a run."""
    head = Head(
        "What to label next",
        f"{whole(len(found.rows))} of {whole(found.asked)} unlabelled examples whose labels would help most, and "
        f"{whole(len(found.doubtful))} given labels that may be wrong.",
        {"network": found.network, "chosen by": found.by, "classes": whole(len(found.form.classes))},
        ("Run ", Code(str(run))),
    )
    return render.page(head, [_unlabelled(found), _doubtful(found)])


def _unlabelled(found: Suggested) -> Section:
    why = WHY.get(found.by.partition(":")[0], "by the strategy")
    text = f"In this order: {why}. The names are those of the CSV file, whose column label can be filled in."
    return Section("To label", [Paragraph(text), _shown(found, found.rows, found.x)])


def _doubtful(found: Suggested) -> Section:
    if not found.doubtful:
        return Section("To look at again", [Paragraph("The network doubts none of the given labels.")])
    text = (
        "Examples with a label, whose unlabelled neighbours are of another class by what the network says; "
        "the most doubtful first."
    )
    return Section("To look at again", [Paragraph(text), _shown(found, found.doubtful, found.x_doubtful)])


def _shown(found: Suggested, rows: Sequence[Row], x: Tensor) -> Block:
    form = found.form
    if drawable(form):
        pictures = zip(rows, levels(x, form), strict=True)
        return Card("", [Gallery([_thumbnail(row, image, form) for row, image in pictures])])
    return Card("", [Rows(_table(rows, x, form))])


def _thumbnail(row: Row, image: Tensor, form: Form) -> Thumbnail:
    height, width = form.shape[1:]
    crisp = max(height, width) <= CRISP
    first, second = (f"{percent(share, 0)}\N{NO-BREAK SPACE}%" for share in (row.confidence, row.of_second))
    below = f"{first}, or {row.second} {second}"
    alt = f"{row.name}: {row.label or 'no label'}, probably {row.prediction}"
    return Thumbnail(png(image), (width, height), crisp, alt, row.label, row.prediction, below, row.name)


def _share(value: float) -> str:
    return percent(value, 1)


def _table(rows: Sequence[Row], x: Tensor, form: Form) -> Table:
    columns = [
        Column("example"),
        *([Column("label")] if any(row.label for row in rows) else []),
        Column("probably"),
        Column("%", _share, "figure"),
        Column("or"),
        Column("%", _share, "figure"),
        *([Column("most unusual", look="list")] if form.kind == "table" else []),
    ]
    unusual = _unusual(x, form) if form.kind == "table" else [None] * len(rows)
    made = []
    for row, features in zip(rows, unusual, strict=True):
        label = [row.label] if any(one.label for one in rows) else []
        said = [row.prediction, row.confidence, row.second, row.of_second]
        made.append([row.name, *label, *said, *([features] if features is not None else [])])
    return Table(columns, made, "examples")


def _unusual(x: Tensor, form: Form) -> list[list[str]]:
    """The features that are farthest from the mean of the training pool, which standardised numbers have at 0."""
    every = x.double()
    numbers = torch.tensor(layout(form.details["columns"]).numbers)
    mean = torch.where(numbers, 0.0, every.mean(0))
    std = torch.where(numbers, 1.0, every.std(0, correction=0) if len(every) > 1 else math.nan)
    return [deviations(form.details["columns"], row, mean, std) for row in every]
