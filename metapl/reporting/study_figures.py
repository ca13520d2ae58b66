"""The figures of a study: every run of every arm, differences, and curves as means over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator

from metapl import methods
from metapl.reporting import figures, log
from metapl.reporting.figures import NICE, Line, Style
from metapl.reporting.log import Curve
from metapl.reporting.page import Html, figure, join, key, opening, percent, plus, tag
from metapl.reporting.plots import COLOURS
from metapl.reporting.svg import INK, VARIABLES
from metapl.studies import paired, specification
from metapl.studies.execution import Run
from metapl.studies.specification import Given, Study
from metapl.studies.tables import Row

DASHES: tuple[tuple[float, ...], ...] = ((), (4, 2), (1, 1.5), (6, 2, 1, 2))
"""Arms that have a colour again have it with the next of these."""

WIDTH, HEIGHT, MARGIN = 360, 28, 14
"""Of the picture of an arm; `MARGIN` is left free at both ends, for the numbers below."""

MEAN = 14
"""Height of the mean, that of the name beside it."""

LEVELS = (6, 22, 3, 25)
"""Heights of the dots, in turn, above and below the mean, so that equal ones are seen."""

ROW = "display:flex;flex-wrap:wrap;align-items:center;gap:0 12px;padding:2px 0"
NAME = "flex:1 1 112px;min-width:0;overflow-wrap:anywhere;font-size:13.5px;line-height:1.3"
STRIP = "flex:4 1 240px;min-width:0"
"""Beside the name where both have room, otherwise below it; the same in every row, whatever the name."""


class Dots(NamedTuple):
    """One number a seed, of one arm."""

    arm: str
    style: Style
    shares: Mapping[int, float]
    """By seed."""


class Scale(NamedTuple):
    """Where per cents are in a picture."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> str:
        """The place of a value, in units of `WIDTH`."""
        return f"{MARGIN + (WIDTH - 2 * MARGIN) * (value - self.low) / (self.high - self.low):.1f}"


Watched = Callable[[Run], Curve]
"""A curve of a run, with NaN where it is not known."""


def styles(about: Study) -> dict[str, Style]:
    """How each arm looks: black the one that the others are compared with, a colour each of the others."""
    looks = (Style(colour, dash) for dash in cycle(DASHES) for colour in (COLOURS[1], COLOURS[0], *COLOURS[2:]))
    return {arm: Style(INK, (), 2.4) if arm == about.against else next(looks) for arm in about.arms}


def headed(condition: Given, text: str) -> str:
    """A heading that names the setting, where there are several."""
    name = specification.label(condition)
    return f"{name}: {text}" if name else opening(text)


def runs(about: Study, rows: Sequence[Row]) -> Html:
    """Top-1 accuracy of every run of a setting, and the mean of every arm."""
    looks = styles(about)
    every = [Dots(row.arm, looks[row.arm], dict(zip(row.seeds, row.values, strict=True))) for row in rows]
    said = ", ".join(f"{row.arm} {percent(row.mean)} %" for row in rows)
    title = headed(rows[0].condition, "top-1 of every run, %")
    return figure(title, _picture(every), f"{title}; means: {said}", caption=_caption("A dot a seed"))


def differences(about: Study, rows: Sequence[Row]) -> Html | None:
    """The differences of every run to that of the same seed with which the arm is compared; None without any."""
    looks, scores = styles(about), {row.arm: dict(zip(row.seeds, row.values, strict=True)) for row in rows}
    reference = scores.get(about.against, {})
    gaps = [
        Dots(arm, looks[arm], {seed: value - reference[seed] for seed, value in mine.items() if seed in reference})
        for arm, mine in scores.items()
        if arm != about.against
    ]
    shown = [one for one in gaps if one.shares]
    if not shown:
        return None
    said = ", ".join(f"{one.arm} {_signed(statistics.fmean(one.shares.values()))}" for one in shown)
    title = headed(rows[0].condition, f"difference to {about.against}, points")
    caption = _caption(f"A dot a seed: the arm less {about.against}, on the same seed")
    return figure(title, _picture(shown, True), f"{title}; means: {said}", caption=caption)


def _caption(dots: str) -> str:
    return f"{dots}. Between the dots the mean with its 95 % interval."


def _signed(share: float) -> str:
    return plus(percent(share))


def _picture(rows: Sequence[Dots], zero: bool = False) -> Html:
    """Names are not drawn but written beside, where they break as they need; `zero` for numbers with a sign."""
    scale = _scale(rows, zero)
    return join(
        *(_row(one.arm, _strip(one, scale, _signed if zero else percent, zero)) for one in rows),
        _row("", _axis(scale)),
    )


def _row(name: str, picture: Html) -> Html:
    return tag("div", tag("span", name, style=NAME), tag("div", picture, style=STRIP), style=ROW)


def _ends(one: Dots) -> Iterable[float]:
    """All that a picture has to have room for, in per cent."""
    values = [100 * share for share in one.shares.values()]
    mean, half = statistics.fmean(values), paired.half_interval(values)
    return values if math.isnan(half) else [*values, mean - half, mean + half]


def _scale(rows: Sequence[Dots], zero: bool) -> Scale:
    values = [value for one in rows for value in _ends(one)] + [0.0] * zero
    low, high = min(values), max(values)
    if high - low < 1e-6:  # one number is no span
        low, high = low - 1, high + 1
    ticks = tuple(float(tick) for tick in MaxNLocator(4, steps=NICE).tick_values(low, high))
    return Scale(ticks[0], ticks[-1], ticks)


def _strip(one: Dots, scale: Scale, write: Callable[[float], str], zero: bool) -> Html:
    colour = f"var({VARIABLES[one.style.colour.lower()]})"
    dots = [
        tag(
            "circle",
            tag("title", f"seed {seed}: {write(share)}"),
            cx=scale.at(100 * share),
            cy=str(LEVELS[place % len(LEVELS)]),
            r="3",
        )
        for place, (seed, share) in enumerate(one.shares.items())
    ]
    shares = list(one.shares.values())
    mean, half = statistics.fmean(shares), paired.half_interval(shares)
    across = "" if math.isnan(half) else f"M{scale.at(100 * (mean - half))} {MEAN}H{scale.at(100 * (mean + half))}"
    label = tag("title", f"mean {write(mean)}" + (f" ± {percent(half)}" if across else ""))
    fill = "var(--card)" if one.style.dash else colour  # hollow for the arms whose line is not full
    look = f"fill:{fill};stroke:{colour};stroke-width:2"
    middle = tag("circle", label, cx=scale.at(100 * mean), cy=str(MEAN), r="4", style=look)
    line = [tag("path", d=across, style=f"stroke:{colour};stroke-width:2.5")] if across else []
    return _svg(HEIGHT, _grid(scale, zero), tag("g", *dots, style=f"fill:{colour};opacity:.5"), *line, middle)


def _svg(height: int, *children: Html) -> Html:
    return tag("svg", *children, viewBox=f"0 0 {WIDTH} {height}", aria_hidden="true")


def _grid(scale: Scale, zero: bool) -> Html:
    upright = f"-2V{HEIGHT + 2}"  # into the padding, so that the lines of two rows meet
    lines = "".join(f"M{scale.at(tick)} {upright}" for tick in scale.ticks)
    ground = tag("path", d=lines, style="stroke:var(--grid)")
    if not zero:
        return ground
    return join(ground, tag("path", d=f"M{scale.at(0)} {upright}", style="stroke:var(--soft);stroke-width:1.5"))


def _axis(scale: Scale) -> Html:
    look = "fill:var(--soft);font-size:11px;text-anchor:middle"
    texts = [f"{round(tick, 6) + 0.0:g}".replace("-", "−") for tick in scale.ticks]
    marks = zip(scale.ticks, texts, strict=True)
    return _svg(16, *(tag("text", text, x=scale.at(tick), y="12", style=look) for tick, text in marks))


def accuracy(run: Run) -> Curve:
    """Top-1 on the validation part of the network that is judged, as it trains."""
    phase = methods.phases().get(_phase(run))
    judged = methods.best(phase.networks if phase else ())
    return log.validation(run["log"]).get(judged, [])


def pseudo_labels(run: Run) -> Curve:
    """How often the teacher's pseudo labels are right."""
    return log.curves(run["log"], _phase(run), "pseudo_labels").get("accuracy", [])


def _phase(run: Run) -> str:
    """The last but for finetuning; empty without a log."""
    return next(reversed(log.phases(run["log"])), "")


def mean(found: Sequence[Curve]) -> Curve:
    """The mean by step, in per cent, over the numbers that are known."""
    by_step: dict[int, list[float]] = {}
    for step, value in (point for curve in found for point in curve):
        if not math.isnan(value):
            by_step.setdefault(step, []).append(100 * value)
    return [(step, statistics.fmean(values)) for step, values in sorted(by_step.items())]


def course(about: Study, here: Sequence[Run], title: str, unit: str, watched: Watched) -> Html | None:
    """The mean over seeds of a curve, a line an arm; None where no arm has one.

    Args:
        about: the study.
        here: the runs of one setting.
        title: of the figure, in which the setting is named too.
        unit: what is written above the upright axis.
        watched: the curve of a run, in shares.
    """
    found = {arm: [watched(run) for run in here if run["arm"] == arm] for arm in about.arms}
    lines = [Line(arm, styles(about)[arm], curve) for arm, several in found.items() if (curve := mean(several))]
    if not lines:
        return None
    place = specification.conditions(about).index(here[0]["setting"])
    full = headed(here[0]["setting"], title)
    said = ", ".join(f"{line.name} {line.curve[-1][1]:.4g}" for line in lines)
    picture = figures.curves(f"{title.replace(' ', '-')}-{place}", lines, unit)
    keys = [key(line.name, line.style) for line in lines]
    return figure(full, picture, f"{full} over the steps, {unit}; at the end: {said}", keys, _left_out(found))


def _left_out(found: Mapping[str, Sequence[Curve]]) -> str:
    counts = {arm: sum(any(math.isnan(value) for _, value in one) for one in several) for arm, several in found.items()}
    said = ", ".join(f"{arm} ({count} of {len(found[arm])} runs)" for arm, count in counts.items() if count)
    return f"Numbers that are not finite are left out, of {said}." if said else ""
