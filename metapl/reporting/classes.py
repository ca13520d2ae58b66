"""A report by class: confusions, recall and precision, and the split."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from metapl.reporting.facts import Facts, parts
from metapl.reporting.names import NETWORKS
from metapl.reporting.page import Html, Section, card, folded, grid, join, note, percent, scrolling, table, tag, whole

MATRIX = 20
"""The most classes that are shown as a matrix."""

CONFUSIONS = 20
"""Confusions in the table that takes its place."""

BY_CLASS = "recall and precision by class"

LOWEST = 10
"""Classes of the lowest recall that are shown before all of them."""

NARROW = 10
"""The most classes, and letters in their names, with which the matrix is narrow enough to stand beside the table."""

LETTERS = 44
"""Letters in a row above the matrix, beyond which the names of classes stand on end; at least 4 are counted of each."""


def confusion(facts: Facts) -> Tensor:
    """Counts `[classes, classes]` of the final network on the test set: row the class, column what was predicted."""
    count = facts.experiment.data.classes
    pairs = facts.y * count + facts.judged[facts.final].predicted
    return pairs.bincount(minlength=count**2).reshape(count, count)


def classes(facts: Facts) -> Section:
    """Which classes are taken for which, and how well each is found."""
    counts, names = confusion(facts), facts.experiment.data.form.classes
    told = note(f"The network “{NETWORKS[facts.final][0]}” on the test set.")
    if len(names) > MATRIX:
        frequent = card(tag("h3", "The most frequent confusions"), _confusions(counts, names))
        order = torch.argsort(counts.diag() / counts.sum(1), stable=True)  # a class without examples, NaN, is last
        lowest = _by_class(counts, names, order[:LOWEST].tolist(), "classes of the lowest recall")
        every = folded(f"All {len(names)} classes", _by_class(counts, names, range(len(names)), BY_CLASS))
        return Section("Classes", join(told, frequent, card(tag("h3", "Classes of the lowest recall"), lowest, every)))
    matrix = card(tag("h3", "Confusion matrix"), _matrix(counts, names))
    every = card(tag("h3", "Accuracy by class"), _by_class(counts, names, range(len(names)), BY_CLASS))
    narrow = len(names) <= NARROW and max(map(len, names)) <= NARROW
    return Section("Classes", join(told, grid(matrix, every) if narrow else join(matrix, every)))


def _cell(count: int, of: int, hit: bool) -> Html:
    if not count:
        return tag("td", "0", class_="none")
    share = 0.08 + 0.52 * math.sqrt(count / of)
    return tag("td", whole(count), class_="hit" if hit else "miss", style=f"--share:{share:.2f}")


def _matrix(counts: Tensor, names: Sequence[str]) -> Html:
    upright = len(names) * max(4, *map(len, names)) <= LETTERS
    above = [
        tag("th", name if upright else tag("span", name, class_="long"), scope="col", title=name) for name in names
    ]
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row", title=name),
            *(_cell(count, sum(row), label == column) for column, count in enumerate(row)),
        )
        for label, (name, row) in enumerate(zip(names, counts.tolist(), strict=True))
    ]
    axis = tag("tr", tag("td", class_="axis"), tag("th", "predicted", colspan=str(len(names)), class_="axis"))
    corner = tag("th", "true", scope="col", class_="axis corner")
    matrix = tag("table", tag("thead", axis, tag("tr", corner, *above)), tag("tbody", *rows), class_="matrix")
    return scrolling(matrix, "confusion matrix")


def _confusions(counts: Tensor, names: Sequence[str]) -> Html:
    wrong = counts - counts.diag().diag()
    order = torch.argsort(wrong.flatten(), descending=True, stable=True)[:CONFUSIONS].tolist()
    rows = []
    for place in order:
        label, predicted = divmod(place, len(names))
        count, of = int(wrong[label, predicted]), int(counts[label].sum())
        if count:
            rows.append([names[label], names[predicted], whole(count), percent(count / of, 1)])
    if not rows:
        return note("There is none: every test example is right.")
    return table(("true", "predicted", "examples", "of the class, %"), rows, "most frequent confusions", (0, 1))


def _share(count: int, of: int) -> Html:
    if not of:
        return tag("span", "–")
    meter = tag("span", class_="meter", style=f"--share:{100 * count / of:.1f}%", aria_hidden="true")
    return join(percent(count / of, 1), meter)


def _by_class(counts: Tensor, names: Sequence[str], shown: Sequence[int], label: str) -> Html:
    right, of, said = counts.diag().tolist(), counts.sum(1).tolist(), counts.sum(0).tolist()
    rows = [
        [names[label], whole(of[label]), _share(right[label], of[label]), _share(right[label], said[label])]
        for label in shown
    ]
    return table(("class", "test examples", "recall, %", "precision, %"), rows, label)


def split(facts: Facts) -> Section:
    """How many examples of each class were labelled, held out, unlabelled and tested."""
    found, names = parts(facts.experiment), facts.experiment.data.form.classes
    rows = [[name, *(whole(part.counts[label]) for part in found.values())] for label, name in enumerate(names)]
    unknown = [whole(part.unknown) for part in found.values()]
    totals = [whole(sum(part.counts) + part.unknown) for part in found.values()]
    below = [*([["class unknown", *unknown]] if any(part.unknown for part in found.values()) else []), ["all", *totals]]
    columns = ("class", *found)
    every = table(columns, [*rows, *below], "examples by class", chosen=len(rows) + len(below) - 1)
    if len(names) > MATRIX:
        totals_alone = table(columns, below, "examples", chosen=len(below) - 1)
        every = join(totals_alone, folded(f"All {len(names)} classes", every))
    return Section("Split", join(note(_shared(facts)), card(every)))


def _shared(facts: Facts) -> str:
    labelled, unlabelled, _ = facts.experiment.split
    inside, count = int(torch.isin(labelled, unlabelled).sum()), len(labelled)
    told = {0: "None of the labelled examples is", count: "All labelled examples are"}
    text = told.get(inside, f"{whole(inside)} of the {whole(count)} labelled examples are")
    return (
        f"{text} in the unlabelled set too. Classes of unlabelled examples are counted where the data has them; "
        "training does not see them."
    )
