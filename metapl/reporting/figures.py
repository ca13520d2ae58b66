"""The figures of a report, and their legends; see `metapl.reporting.drawing` for how they become SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from metapl.reporting.blocks import Key
from metapl.reporting.drawing import COLOURS, INK, SOFT, Picture, drawn, variable
from metapl.reporting.facts import Bin
from metapl.reporting.log import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAPS = (("accuracy", "C1"), ("more than the confidence", "C5"), ("less than the confidence", "C4"))
"""The legend of a reliability diagram: accuracy, that part of it above the confidence, what it lacks to reach it."""

NICE = (1, 2, 2.5, 5, 10)
"""Distances between marks on an axis, but for powers of ten."""

POINTS = 600
"""The most examples that are drawn in the plane."""


class Style(NamedTuple):
    """How a line looks, here and in a legend."""

    colour: str
    """"C0" and so on, see `metapl.reporting.drawing`."""
    dash: tuple[float, ...] = ()
    """Lengths on and off, in widths of the line; a full line without any."""
    width: float = 2.0


class Line(NamedTuple):
    """A curve with its name in the legend."""

    name: str
    style: Style
    curve: Curve


class Dot(NamedTuple):
    """A share with its standard error."""

    name: str
    style: Style
    value: float
    error: float


class Plane(NamedTuple):
    """Test examples in the plane, and what a network makes of it."""

    points: np.ndarray
    """`[examples, 2]`."""
    y: np.ndarray
    wrong: np.ndarray
    """Indices of the wrong ones."""
    axes: tuple[np.ndarray, np.ndarray]
    """`[columns]` and `[rows]`, of the grid on which the network was asked."""
    regions: np.ndarray
    """`[rows, columns]`, the classes that it gave."""


def key(name: str, style: Style) -> Key:
    """An entry of a legend: a piece of the line, and its name."""
    colour, width = variable(style.colour), style.width
    ends = [width * sum(style.dash[:place]) for place in range(len(style.dash) + 1)]
    pieces = [
        f"{'#0000' if place % 2 else colour} {ends[place]:g}px {ends[place + 1]:g}px"
        for place in range(len(style.dash))
    ]
    ground = f"repeating-linear-gradient(to right,{','.join(pieces)})" if pieces else colour
    return Key(name, f"height:{width:g}px;background:{ground}", "line")


def swatch(name: str, colour: str) -> Key:
    """An entry of a legend: a dot of a colour, and its name."""
    return Key(name, f"background:{variable(colour)}", "dot")


def curves(name: str, lines: Sequence[Line], unit: str, shade: tuple[float, float] | None = None) -> Picture:
    """Lines over the steps.

    Args:
        name: of the figure, one of its own in the page.
        lines: with one number at least each.
        unit: what is written above the upright axis.
        shade: steps between which the ground is darker.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if shade:
            axes.axvspan(*shade, color=SOFT, alpha=0.12, linewidth=0)
        for line in lines:
            _plot(axes, line)
        axes.set_title(unit)
        axes.set_xlabel("step", loc="right")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=NICE))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=NICE))
        axes.grid(visible=False, axis="x")
        axes.margins(x=0.02)

    return drawn(name, 240, draw)


def _plot(axes: Axes, line: Line) -> None:
    x, y = zip(*line.curve, strict=True)
    axes.plot(
        x,
        y,
        color=line.style.colour,
        linewidth=line.style.width,
        linestyle=(0, line.style.dash) if line.style.dash else "-",
        marker="o" if len(x) < 3 else None,  # one report is no line
        markersize=4,
        solid_capstyle="round",
    )


def dots(name: str, rows: Sequence[Dot], unit: str) -> Picture:
    """A dot for each row, from the top down, with a bar of one standard error each way."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            axes.errorbar(row.value, place, xerr=row.error, fmt="o", color=row.style.colour, markersize=7, linewidth=2)
        axes.set_yticks(range(len(rows)), [row.name for row in rows], color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(unit)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=NICE))
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")

    return drawn(name, 27 * len(rows) + 56, draw)


def reliability(name: str, bins: Sequence[Bin]) -> Picture:
    """Accuracy and its gap to the confidence, and below how many examples each bin has; see `GAPS`."""
    full = [one for one in bins if one.examples]
    middle = [50 * (one.low + one.high) for one in full]
    common = [100 * min(one.accuracy, one.confidence) for one in full]
    excess = [100 * max(one.accuracy - one.confidence, 0) for one in full]
    lack = [100 * max(one.confidence - one.accuracy, 0) for one in full]
    width = 86 * (bins[0].high - bins[0].low)

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for (_, colour), heights in zip(GAPS, (common, excess, lack), strict=True):
            upper.bar(middle, heights, width, common if heights is not common else 0, color=colour, linewidth=0)
        upper.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=(0, (4, 3)))
        upper.set(xlim=(0, 100), ylim=(0, 100), title="accuracy, %")
        lower.bar(middle, [one.examples for one in full], width, color=SOFT, linewidth=0)
        for place, one in zip(middle, full, strict=True):
            lower.annotate(
                short(one.examples), (place, one.examples), (0, 2), textcoords="offset points", ha="center", size=8
            )
        lower.set(ylim=(0, 1.35 * max(one.examples for one in full)), title="examples", yticks=[])
        lower.set_xlabel("confidence, %", loc="right")
        upper.grid(visible=False, axis="x")
        lower.grid(visible=False)

    return drawn(name, 330, draw)


def short(count: int) -> str:
    """A number of examples in four characters at most: 999, 1.2k, 12k, 1.2M."""
    if count < 1000:
        return str(count)
    power = 1 if count < 999_500 else 2
    value = count / 1000**power
    return f"{value:.1f}{'kM'[power - 1]}" if value < 9.95 else f"{value:.0f}{'kM'[power - 1]}"


def class_colour(label: int) -> str:
    """The colour of a class in the plane; the eighth has that of the first again."""
    blue_first = (1, 0, *range(2, len(COLOURS)))
    return f"C{blue_first[label % len(COLOURS)]}"


def plane(name: str, seen: Plane) -> Picture:
    """Regions by the class that the network gives, test examples by their class, wrong ones as crosses."""
    right = np.setdiff1d(np.arange(len(seen.y)), seen.wrong)
    right = right[:: math.ceil(len(right) / POINTS) or 1]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for label in range(int(max(seen.y.max(), seen.regions.max())) + 1):
            colour = class_colour(label)
            inside = (seen.regions == label).astype(float)
            if 0 < inside.sum() < inside.size:
                axes.contourf(*seen.axes, inside, levels=[0.5, 1.5], colors=[colour], alpha=0.16)
            for index, marker, size, alpha in ((right, "o", 3, 0.5), (seen.wrong[:POINTS], "x", 5, 1.0)):
                mine = seen.points[index[seen.y[index] == label]]
                axes.plot(*mine.T, marker, color=colour, markersize=size, alpha=alpha, markeredgewidth=marker == "x")
        axes.grid(visible=False)

    return drawn(name, 330, draw)
