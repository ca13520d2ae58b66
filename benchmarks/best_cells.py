"""The cells of `benchmarks/best.py`: data sets × labels a class × arms, what was found in them, and the table of it."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

from metapl import methods

Row = dict[str, float]
"""Test accuracy by network, of a seed."""


class Set(NamedTuple):
    """A data set."""

    data: str
    """For `--data`; {sets} is the folder of the files."""
    classes: int


UNSEEN = (
    ("satellite", "Satellite", 6),
    ("vehicles", "Vehicle", 4),
    ("glass", "Glass", 6),
    ("sonar", "Sonar", 2),
    ("diabetes", "PimaIndiansDiabetes", 2),
    ("DNA", "DNA", 3),
)
"""Tables that had no part in any choice of a default when they were run first."""

KEEL = {
    2: "australian chess crx heart magic mushroom phoneme saheart wisconsin yeast3 page-blocks0 banana bupa german "
    "mammographic new-thyroid1 ring spambase twonorm",
    3: "contraceptive iris",
    9: "marketing",
    10: "led7digit penbased",
    11: "texture",
    15: "movement_libras",
    26: "letter",
}
"""Tables by the number of classes."""

SETS = {
    "digits": Set("digits", 10),
    "Fashion-MNIST": Set("fashion-mnist", 10),
    "MNIST, 5,000": Set("{sets}/mnist5000.npz", 10),
    "CIFAR-10 features": Set("{sets}/cifar10-efficientnet-lite0.npz", 10),
    "newsgroups, sentence vectors": Set("{sets}/texts.npz", 20),
    "image segments": Set("{sets}/segments.csv", 7),
    "wine": Set("{sets}/wine.csv", 3),
    "tumours": Set("breast-cancer", 2),
    "two moons": Set("moons", 2),
    "uneven segments": Set("{sets}/uneven.csv", 7),
    **{name: Set(f"{{sets}}/mlbench-{file}.csv", classes) for name, file, classes in UNSEEN},
}

MORE = {
    "phishing": Set("{sets}/phishing.csv", 2),
    "power demand": Set("{sets}/aeon-ItalyPowerDemand.csv", 2),
    "vowels of nine speakers": Set("{sets}/aeon-JapaneseVowels.csv", 9),
    **{name: Set(f"{{sets}}/keel-{name}.csv", classes) for classes, names in KEEL.items() for name in names.split()},
}
"""Those that are run by their names alone."""

ALL = {**SETS, **MORE}

COUNTS = (1, 4, 25)
"""Labels a class."""

ARMS: dict[str, dict[str, Any]] = {
    "panel": {"method": "supervised", "baselines": True},
    "guided": {"method": "uda"},
    "none": {"grad": "none"},
    "exact": {"grad": "exact"},
    "first-order": {"grad": "first-order"},
    "auto": {},
    **{name: {"preset": name} for name in ("fixmatch", "flexmatch", "freematch", "softmatch", "adamatch")},
}
"""What each changes; all but the panel and auto have no baselines."""

AGAINST = {"guided": "panel", "auto": "panel", "exact": "none", "first-order": "none"}
"""What an arm is compared with; the others with the guided network."""


def accuracy(arm: str, row: Row) -> float:
    """The accuracy of an arm, in percent: of what it chose, or of its preferred network."""
    return 100 * (next(iter(row.values())) if arm == "auto" else row[methods.best(row)])


def difference(ones: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """The mean of paired differences, of the seeds that both have, and half of its 95 % interval by Student's t."""
    gaps = [one - other for one, other in zip(ones, others, strict=False)]
    return statistics.fmean(gaps), stats.t.ppf(0.975, len(gaps) - 1) * statistics.stdev(gaps) / len(gaps) ** 0.5


def written(mean: float, half: float) -> str:
    """A difference with its interval."""
    return f"{mean:+.1f} ± {half:.1f}".replace("-", "−")


Found = dict[tuple[str, int, str], list[Row]]
"""The rows of the arms that are there, by data set, count and arm."""


def read(out: Path) -> Found:
    """What a file holds; of a cell that is in it twice, the last. A line that was cut off ends the program."""
    found: Found = {}
    for number, text in enumerate(out.read_text(encoding="utf-8").splitlines() if out.exists() else [], 1):
        try:
            one = json.loads(text)
        except json.JSONDecodeError:
            sys.exit(f"{out}, line {number}: not a whole cell, as where a process was killed: remove the line")
        found[one["data"], one["labels"], one["arm"]] = one["rows"]
    return found


def of(found: Found, name: str, count: int) -> dict[str, list[Row]]:
    """The arms of a data set and count."""
    return {arm: found[name, count, arm] for arm in ARMS if (name, count, arm) in found}


def of_panel(rows: Sequence[Row]) -> tuple[str, list[float]]:
    """The method of the panel with the best mean on the test set, and its accuracies in percent."""
    accuracies = {one: [100 * row[one] for row in rows] for one in methods.PANEL}
    best = max(accuracies, key=lambda one: statistics.fmean(accuracies[one]))
    return best, accuracies[best]


def accuracies(found: dict[str, list[Row]], arm: str) -> list[float]:
    """Those of an arm by seed, in percent, as what others are compared with; none where it was not run."""
    if arm not in found:
        return []
    return of_panel(found[arm])[1] if arm == "panel" else [accuracy(arm, row) for row in found[arm]]


def line(found: dict[str, list[Row]], arms: Sequence[str]) -> list[str]:
    """The cells of a data set and count: one for each arm, and after the panel one for networks on labels alone."""
    cells = []
    for arm in arms:
        own, other = accuracies(found, arm), accuracies(found, AGAINST.get(arm, "guided"))
        mean = f"{statistics.fmean(own):.1f}" if own else ""
        if arm == "panel":
            alone = statistics.fmean(100 * row["supervised"] for row in found["panel"])
            cells += [f"{of_panel(found['panel'])[0]} {mean}", f"{alone:.1f}"]
        else:
            fewer = f", {len(own)} seeds" if own and len(own) != len(found["panel"]) else ""
            cells.append(f"{mean} ({written(*difference(own, other))}{fewer})" if own and other else mean)
    return cells


def table(cells: Found, arms: Sequence[str]) -> list[str]:
    """Lines of a table, with a row for each data set and count, and how often each arm is ahead."""
    there = [(name, count, of(cells, name, count)) for name in ALL for count in COUNTS]
    there = [(name, count, found) for name, count, found in there if "panel" in found]
    columns = [part for arm in arms for part in (("best of the panel", "supervised") if arm == "panel" else (arm,))]
    rows = [["data", "labels a class", "seeds", *columns]]
    rows.append(["---"] * len(rows[0]))
    rows += [[name, str(count), str(len(found["panel"])), *line(found, arms)] for name, count, found in there]
    won = [tally(arm, [found for _, _, found in there]) for arm in arms if arm != "panel"]
    return [*(f"| {' | '.join(row)} |" for row in rows), *won]


def tally(arm: str, cells: Sequence[dict[str, list[Row]]]) -> str:
    """How often an arm is ahead of what it is compared with, by the interval, and behind it."""
    other = AGAINST.get(arm, "guided")
    gaps = [difference(accuracies(found, arm), accuracies(found, other)) for found in cells if {arm, other} <= {*found}]
    won, lost = (sum(sign * mean > half for mean, half in gaps) for sign in (1, -1))
    against = "the best of the panel" if other == "panel" else other
    return f"{arm} against {against}: {won} ahead, {len(gaps) - won - lost} level, {lost} behind"
