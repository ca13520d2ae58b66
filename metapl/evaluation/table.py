"""Test metrics by network as a table, of one run or of several."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from metapl.files.table import Column, Table, number, percent

Metrics: TypeAlias = Mapping[str, Mapping[str, float]]
"""By network, the values of `metapl.evaluation.metrics.METRICS`."""

COLUMNS = {
    "top1": Column("top-1 %", percent, "figure"),
    "top5": Column("top-5 %", percent, "figure"),
    "nll": Column("NLL", number, "figure"),
    "ece": Column("ECE %", percent, "figure"),
}
"""In the order of the table, which leaves out what differs from top-1 only where classes are not equally many."""

UNITS = {"top1": (100, 2), "top5": (100, 2), "nll": (1, 3), "ece": (100, 2), "balanced": (100, 2), "macro_f1": (100, 2)}
"""What a value is multiplied by to be shown, and the decimals."""


def spread(values: Sequence[float], metric: str) -> str:
    """The mean of a metric ± its sample standard deviation; 0 of a single value."""
    unit, digits = UNITS[metric]
    shown = [unit * value for value in values]
    deviation = statistics.stdev(shown) if len(shown) > 1 else 0.0
    return f"{statistics.fmean(shown):.{digits}f} ± {deviation:.{digits}f}"


def by_network(runs: Sequence[Metrics], titles: Mapping[str, str], label: str = "", chosen: str = "") -> Table:
    """A row for each network: its metrics, and of several runs their mean ± standard deviation.

    Args:
        runs: one at least, with the same networks.
        titles: what to call each network; those without a title are left out.
        label: of the table.
        chosen: the network whose row stands out.
    """
    shown = [name for name in titles if name in runs[0]]
    rows = [
        (titles[name], *(_cell([run[name][metric] for run in runs], metric) for metric in COLUMNS)) for name in shown
    ]
    place = shown.index(chosen) if chosen else -1
    return Table([Column("network"), *COLUMNS.values()], rows, label, place)


def _cell(values: Sequence[float], metric: str) -> float | str:
    if len(values) == 1:
        return values[0]
    unit, digits = UNITS[metric]
    return f"{unit * statistics.fmean(values):.{digits}f} ± {unit * statistics.stdev(values):.{digits}f}"
