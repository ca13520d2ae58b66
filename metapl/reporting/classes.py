"""A report by class: confusions, recall and precision, and the split."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from metapl.files.table import Column, Table, percent, whole
from metapl.reporting.blocks import Block, Card, Folded, Grid, Matrix, Paragraph, Rows, Section
from metapl.reporting.facts import Facts, parts
from metapl.reporting.names import NETWORKS

MATRIX = 20
"""The most classes that are shown as a matrix."""

CONFUSIONS = 20
"""Confusions in the table that takes its place."""

BY_CLASS = "recall and precision by class"
"""The caption of the table of classes."""

LOWEST = 10
"""Classes of the lowest recall that are shown before all of them."""

NARROW = 10
"""The most classes, and letters in their names, with which the matrix is narrow enough to stand beside the table."""

LETTERS = 44
"""Letters in a row above the matrix, beyond which the names of classes stand on end; at least 4 are counted of each."""


def share(value: float) -> str:
    """A share in per cent, with one decimal."""
    return percent(value, 1)


def classes(facts: Facts) -> Section:
    """Which classes are taken for which, and how well each is found."""
    counts, names = facts.confusion, facts.experiment.data.form.classes
    note = Paragraph(f"The network “{NETWORKS[facts.final][0]}” on the test set.")
    every = Rows(_by_class(counts, names, range(len(names)), BY_CLASS))
    if len(names) > MATRIX:
        order = torch.argsort(counts.diag() / counts.sum(1), stable=True)  # a class without examples, NaN, is last
        lowest = Rows(_by_class(counts, names, order[:LOWEST].tolist(), "classes of the lowest recall"))
        folded = Folded(f"All {len(names)} classes", [every])
        frequent = Card("The most frequent confusions", [_confusions(counts, names)])
        return Section("Classes", [note, frequent, Card("Classes of the lowest recall", [lowest, folded])])
    upright = len(names) * max(4, *map(len, names)) <= LETTERS
    matrix = Card("Confusion matrix", [Matrix(names, counts.tolist(), upright)])
    boxes = [matrix, Card("Accuracy by class", [every])]
    narrow = len(names) <= NARROW and max(map(len, names)) <= NARROW
    return Section("Classes", [note, Grid(boxes)] if narrow else [note, *boxes])


def _confusions(counts: Tensor, names: Sequence[str]) -> Block:
    wrong = counts - counts.diag().diag()
    order = torch.argsort(wrong.flatten(), descending=True, stable=True)[:CONFUSIONS].tolist()
    rows = []
    for place in order:
        label, predicted = divmod(place, len(names))
        count, of = int(wrong[label, predicted]), int(counts[label].sum())
        if count:
            rows.append((names[label], names[predicted], count, count / of))
    if not rows:
        return Paragraph("There is none: every test example is right.")
    columns = [
        Column("true"),
        Column("predicted"),
        Column("examples", whole, "figure"),
        Column("of the class, %", share, "figure"),
    ]
    return Rows(Table(columns, rows, "most frequent confusions"))


def _by_class(counts: Tensor, names: Sequence[str], shown: Sequence[int], label: str) -> Table:
    right, of, given = counts.diag().tolist(), counts.sum(1).tolist(), counts.sum(0).tolist()
    rows = [
        (names[place], of[place], _ratio(right[place], of[place]), _ratio(right[place], given[place]))
        for place in shown
    ]
    columns = [
        Column("class"),
        Column("test examples", whole, "figure"),
        Column("recall, %", share, "meter"),
        Column("precision, %", share, "meter"),
    ]
    return Table(columns, rows, label)


def _ratio(count: int, of: int) -> float:
    return count / of if of else math.nan


def split(facts: Facts) -> Section:
    """How many examples of each class were labelled, held out, unlabelled and tested."""
    found, names = parts(facts.experiment), facts.experiment.data.form.classes
    rows = [(name, *(part.counts[label] for part in found.values())) for label, name in enumerate(names)]
    unknown = [part.unknown for part in found.values()]
    totals = [sum(part.counts) + part.unknown for part in found.values()]
    below = [*([("class unknown", *unknown)] if any(unknown) else []), ("all", *totals)]
    columns = [Column("class"), *(Column(name, whole, "figure") for name in found)]
    every = Rows(Table(columns, [*rows, *below], "examples by class", chosen=len(rows) + len(below) - 1))
    shown: list[Block] = [every]
    if len(names) > MATRIX:
        totals_alone = Rows(Table(columns, below, "examples", chosen=len(below) - 1))
        shown = [totals_alone, Folded(f"All {len(names)} classes", [every])]
    return Section("Split", [Paragraph(_shared(facts)), Card("", shown)])


def _shared(facts: Facts) -> str:
    labelled, unlabelled, _ = facts.experiment.split
    inside, count = int(torch.isin(labelled, unlabelled).sum()), len(labelled)
    known = {0: "None of the labelled examples is", count: "All labelled examples are"}
    text = known.get(inside, f"{whole(inside)} of the {whole(count)} labelled examples are")
    return (
        f"{text} in the unlabelled set too. Classes of unlabelled examples are counted where the data has them; "
        "training does not see them."
    )
