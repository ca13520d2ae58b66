"""The figures of a study: every run of every arm, differences, and curves as means over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

from metapl import methods
from metapl.files.table import percent, plus
from metapl.reporting import figures, log, strips
from metapl.reporting.blocks import Figure
from metapl.reporting.drawing import COLOURS, INK
from metapl.reporting.figures import Line, Style, key
from metapl.reporting.log import Curve
from metapl.reporting.names import opening
from metapl.reporting.strips import Strip
from metapl.studies import specification
from metapl.studies.checks import Given
from metapl.studies.execution import Run
from metapl.studies.results import Row
from metapl.studies.specification import Study

DASHES: tuple[tuple[float, ...], ...] = ((), (4, 2), (1, 1.5), (6, 2, 1, 2))
"""Arms that have a colour again have it with the next of these."""

Watched = Callable[[Run], Curve]
"""A curve of a run, with NaN where it is not known."""


def styles(about: Study) -> dict[str, Style]:
    """How each arm looks: black the one that the others are compared with, a colour each of the others."""
    looks = (Style(f"C{place}", dash) for dash in cycle(DASHES) for place in (1, 0, *range(2, len(COLOURS))))
    return {arm: Style(INK, (), 2.4) if arm == about.against else next(looks) for arm in about.arms}


def headed(condition: Given, text: str) -> str:
    """A heading that names the condition, where there are several."""
    name = specification.label(condition)
    return f"{name}: {text}" if name else opening(text)


def runs(about: Study, rows: Sequence[Row]) -> Figure:
    """Top-1 accuracy of every run in a condition, and the mean of every arm."""
    looks = styles(about)
    shown = [Strip(row.arm, looks[row.arm], [100 * value for value in row.values]) for row in rows]
    means = ", ".join(f"{row.arm} {percent(row.mean)} %" for row in rows)
    title = headed(rows[0].condition, "top-1 of every run, %")
    picture = strips.strips(_name("runs", about, rows), shown)
    return Figure(title, picture, f"{title}; means: {means}", caption=[_caption("A dot a seed")])


def differences(about: Study, rows: Sequence[Row]) -> Figure | None:
    """The differences of every run to that of the same seed with which the arm is compared; None without any."""
    looks, scores = styles(about), {row.arm: dict(zip(row.seeds, row.values, strict=True)) for row in rows}
    reference = scores.get(about.against, {})
    gaps = {
        arm: [value - reference[seed] for seed, value in mine.items() if seed in reference]
        for arm, mine in scores.items()
        if arm != about.against
    }
    shown = [Strip(arm, looks[arm], [100 * gap for gap in mine]) for arm, mine in gaps.items() if mine]
    if not shown:
        return None
    means = ", ".join(f"{arm} {plus(percent(statistics.fmean(mine)))}" for arm, mine in gaps.items() if mine)
    title = headed(rows[0].condition, f"difference to {about.against}, points")
    caption = _caption(f"A dot a seed: the arm less {about.against}, on the same seed")
    picture = strips.strips(_name("differences", about, rows), shown, zero=True)
    return Figure(title, picture, f"{title}; means: {means}", caption=[caption])


def _caption(dots: str) -> str:
    return f"{dots}. Between the dots the mean with its 95 % interval."


def _name(figure: str, about: Study, rows: Sequence[Row]) -> str:
    return f"{figure}-{specification.conditions(about).index(rows[0].condition)}"


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


def over_steps(about: Study, here: Sequence[Run], title: str, unit: str, watched: Watched) -> Figure | None:
    """The mean over seeds of a curve, a line an arm; None where no arm has one.

    Args:
        about: the study.
        here: the runs in one condition.
        title: of the figure, in which the condition is named too.
        unit: what is written above the upright axis.
        watched: the curve of a run, in shares.
    """
    found = {arm: [watched(run) for run in here if run["arm"] == arm] for arm in about.arms}
    lines = [Line(arm, styles(about)[arm], curve) for arm, several in found.items() if (curve := mean(several))]
    if not lines:
        return None
    place = specification.conditions(about).index(here[0]["setting"])
    full = headed(here[0]["setting"], title)
    last = ", ".join(f"{line.name} {line.curve[-1][1]:.4g}" for line in lines)
    picture = figures.curves(f"{title.replace(' ', '-')}-{place}", lines, unit)
    keys = [key(line.name, line.style) for line in lines]
    return Figure(full, picture, f"{full} over the steps, {unit}; at the end: {last}", keys, _left_out(found))


def _left_out(found: Mapping[str, Sequence[Curve]]) -> list[str]:
    counts = {arm: sum(any(math.isnan(value) for _, value in one) for one in several) for arm, several in found.items()}
    arms = ", ".join(f"{arm} ({count} of {len(found[arm])} runs)" for arm, count in counts.items() if count)
    return [f"Numbers that are not finite are left out, of {arms}."] if arms else []
