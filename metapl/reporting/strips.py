"""The figure of the runs of a study: a row for each arm, with a dot for each seed."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.ticker import MaxNLocator

from metapl.files.escape import visible
from metapl.reporting.drawing import INK, SOFT, Picture, drawn
from metapl.reporting.figures import NICE, Style
from metapl.studies.paired import half_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTERS = 18
"""Of the name of an arm, in a line."""

LEVELS = (-0.24, 0.24, -0.33, 0.33)
"""Heights of the dots of a row, in turn, above and below the mean, so that equal ones are seen."""


class Strip(NamedTuple):
    """The numbers of an arm, one a seed."""

    name: str
    style: Style
    values: Sequence[float]


def strips(name: str, rows: Sequence[Strip], zero: bool = False) -> Picture:
    """A row for each arm, from the top down: a dot for each number, and their mean with its 95 % interval.

    Args:
        name: of the figure, one of its own in the page.
        rows: with one number at least each.
        zero: whether the numbers are differences, so that zero is marked.
    """
    names = [textwrap.fill(visible(row.name), LETTERS) for row in rows]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if zero:
            axes.axvline(0, color=SOFT, linewidth=1.5)
        for place, row in enumerate(rows):
            _strip(axes, place, row)
        axes.set_yticks(range(len(rows)), names, color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=NICE))
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")

    return drawn(name, 40 + sum(max(28, 16 * (1 + text.count("\n"))) for text in names), draw)


def _strip(axes: Axes, place: int, row: Strip) -> None:
    colour, mean, half = row.style.colour, statistics.fmean(row.values), half_interval(row.values)
    heights = [place + LEVELS[index % len(LEVELS)] for index in range(len(row.values))]
    axes.plot(row.values, heights, "o", color=colour, alpha=0.5, markersize=5, markeredgewidth=0)
    axes.errorbar(
        mean,
        place,
        xerr=None if math.isnan(half) else half,
        fmt="o",
        color=colour,
        markerfacecolor="none" if row.style.dash else colour,  # hollow for the arms whose line is not full
        markersize=7,
        markeredgewidth=2,
        linewidth=2.5,
        zorder=3,
    )
