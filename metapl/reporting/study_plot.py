"""A picture of a study."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from metapl.files.escape import visible
from metapl.files.storage import write
from metapl.reporting.drawing import COLOURS
from metapl.studies.results import Row
from metapl.studies.specification import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 3
"""Most panels in a row."""

LETTERS = 30
"""Of a name or of a title, in a line."""

PANEL, NAMES, LINE, FRAME = 3.1, 2.0, 0.24, 1.0
"""Widths of a panel and of the names, heights of a line and of what is above and below the arms, in inches."""


def study(rows: Sequence[Row], path: Path) -> None:
    """Accuracy by arm: the mean over seeds with its 95 % interval, and every seed as a faint dot; a panel a condition.

    Args:
        rows: of `metapl.studies.results.rows`, one at least.
        path: the PNG to write.
    """
    arms, conditions = (list(dict.fromkeys(of(row) for row in rows)) for of in (lambda row: row.arm, _condition))
    names = [_wrapped(arm) for arm in arms]
    columns = min(ACROSS, len(conditions))
    down = math.ceil(len(conditions) / columns)
    lines = sum(1 + name.count("\n") for name in names) + 0.5 * len(names)
    size = (NAMES + PANEL * columns, down * (FRAME + LINE * lines))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(down, columns, sharey=True, squeeze=False).flatten()
    for axes, condition in zip(panels, conditions, strict=False):
        _panel(axes, [row for row in rows if _condition(row) == condition], arms)
        axes.set_title(_wrapped(condition), fontsize="medium")
    for axes in panels[len(conditions) :]:
        axes.set_visible(False)
    panels[0].set_yticks(range(len(arms)), names, fontsize="small")
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    write(path, lambda temporary: figure.savefig(temporary, dpi=150))


def _condition(row: Row) -> str:
    return label(row.condition)


def _wrapped(text: str) -> str:
    return textwrap.fill(visible(text), LETTERS).replace(
        "$", r"\$"
    )  # else what is between two dollars would be a formula


def _panel(axes: Axes, rows: Sequence[Row], arms: Sequence[str]) -> None:
    for row in rows:
        place = arms.index(row.arm)
        axes.plot([100 * value for value in row.values], [place] * len(row.values), "o", color=COLOURS[1], alpha=0.25)
        half = None if math.isnan(row.interval) else 100 * row.interval
        axes.errorbar(100 * row.mean, place, xerr=half, fmt="D", color="black", markersize=5, capsize=4, zorder=3)
    axes.set_xlabel("test top-1, %")
    axes.grid(alpha=0.3, axis="x")
