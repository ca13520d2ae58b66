"""What a study has found, as tables; `markdown` is all of them for a page of documentation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from metapl.evaluation.table import COLUMNS, spread
from metapl.files import table
from metapl.files.escape import in_table
from metapl.files.table import Column, Table, percent, whole
from metapl.studies import paired, results, specification
from metapl.studies.execution import Run
from metapl.studies.paired import Difference
from metapl.studies.results import Row
from metapl.studies.specification import Study

NOTE = (
    "top-1 on the test set after the last step, mean and standard deviation over seeds; differences are paired, "
    "with their 95 % interval"
)
"""What stands below a table."""

BEHIND = ("NLL", "ECE %", "seeds", "network")
"""The columns of `arms` for which only a page has room."""


def points(found: Difference) -> str:
    """A difference in percentage points, with half of its 95 % interval where it has one."""
    mean = f"{100 * found.mean:+.2f}"
    interval = "" if math.isnan(found.interval) else f" ± {100 * found.interval:.2f}"
    return f"{mean}{interval}".replace("-", "−")


def p_value(value: float) -> str:
    """A p-value with two digits; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.2g}"


def _compared(title: str) -> list[Column]:
    names = ("better on", "sign p", "t p")
    return [Column(title, points, "figure"), *(Column(name, p_value, "figure") for name in names)]


def _cells(found: Difference | None) -> tuple[Any, ...]:
    """Of these columns: "better on" counts the seeds on which the two differ."""
    if not found:
        return ("–",) * 4
    return found, f"{found.wins} of {found.wins + found.losses}", found.sign_p, found.t_p


def arms(about: Study, here: Sequence[Run], part: str = "test") -> Table:
    """Every arm against the one that all are compared with.

    Args:
        about: the study.
        here: its runs in one condition.
        part: "test", or "validation".
    """
    reach = [Column(f"≥ {100 * about.reach:g} %", look="figure")] if about.reach else []
    columns = [
        Column("arm", look="name"),
        COLUMNS["top1"],
        Column("sd", percent, "figure"),
        *reach,
        *_compared(f"− {about.against}"),
        Column("NLL", look="figure"),
        Column("ECE %", look="figure"),
        Column("seeds", whole, "figure"),
        Column("network", look="label"),
    ]
    return Table(columns, [_arm(about, here, row, part) for row in results.rows(about, here, part)], "arms")


def _arm(about: Study, here: Sequence[Run], row: Row, part: str) -> list[Any]:
    reach = [f"{sum(value >= about.reach for value in row.values)} of {len(row.values)}"] if about.reach else []
    name = f"{row.arm} ({row.diverged} diverged)" if row.diverged else row.arm
    deviation = row.deviation if len(row.seeds) > 1 else math.nan
    compared = (None,) * 4 if row.arm == about.against else _cells(row.difference)
    mine = [run[part][row.network] for run in here if run["arm"] == row.arm]
    calibration = [_mean(mine, metric) for metric in ("nll", "ece")]
    return [name, row.mean, deviation, *reach, *compared, *calibration, len(row.seeds), row.network]


def _mean(found: Sequence[Mapping[str, float | None]], metric: str) -> str:
    """Of a metric over seeds; a run that has diverged may not have one."""
    known = [value for value in (one[metric] for one in found) if value is not None]
    text = COLUMNS[metric].write(statistics.fmean(known) if known else math.nan)
    return text if len(known) in (0, len(found)) else f"{text} ({len(known)} of {len(found)})"


def pairs(about: Study, here: Sequence[Run], part: str = "test") -> Table:
    """The further comparisons that a study asks for; arguments as of `arms`."""
    columns = [Column("arm", look="name"), Column("minus", look="name"), *_compared("difference")]
    rows = [(pair.arm, pair.minus, *_cells(pair.difference)) for pair in results.pairs(about, here, part)]
    return Table(columns, rows, "arms against each other")


def teachers(about: Study, here: Sequence[Run], part: str = "test") -> Table:
    """The teacher, and the student that is judged, in every arm that has both; arguments as of `arms`."""
    columns = [
        Column("arm", look="name"),
        Column("teacher", percent, "figure"),
        Column("student", percent, "figure"),
        *_compared("student − teacher"),
        Column("teacher ECE", look="figure"),
        Column("student ECE", look="figure"),
        Column("network", look="label"),
        Column("pseudo labels right"),
    ]
    with_teacher = [run for run in here if "teacher" in run[part]]
    both = (results.rows(about, with_teacher, part, network) for network in ("auto", "teacher"))
    rows = []
    for student, teacher in zip(*both, strict=True):
        mine = [run for run in with_teacher if run["arm"] == student.arm]
        ece = [_mean([run[part][network] for run in mine], "ece") for network in ("teacher", student.network)]
        compared = _cells(paired.compare(student.values, teacher.values))
        rows.append((student.arm, teacher.mean, student.mean, *compared, *ece, student.network, _quality(mine)))
    return Table(columns, rows, "teacher and student")


def _quality(runs: Sequence[Run]) -> str:
    """Share of right pseudo labels after a fifth, a half and all of the steps, as far as anybody looked."""
    logs = [[line for line in run["log"] if line.get("pseudo_labels")] for run in runs]
    looks = min(map(len, logs))
    places = sorted({looks * part // 10 - 1 for part in (2, 5, 10)} - {-1})
    shares = []
    for place in places:
        known = [found for log in logs if (found := log[place]["pseudo_labels"]["accuracy"]) is not None]
        share = f"{100 * statistics.fmean(known):.1f} %" if known else "–"
        shares.append(f"{share} after {logs[0][place]['step']}")
    return ", ".join(shares) or "–"


def networks(about: Study, here: Sequence[Run], part: str = "test") -> Table:
    """Mean ± standard deviation of every network of every arm; arguments as of `arms`."""
    metrics = ("top1", "nll", "ece")
    rows = []
    for arm in about.arms:
        mine = [run[part] for run in here if run["arm"] == arm]
        for name in mine[0] if mine else ():
            rows.append((arm, name, *(_spread([one[name][metric] for one in mine], metric) for metric in metrics)))
    columns = [Column("arm", look="name"), Column("network"), *(COLUMNS[metric] for metric in metrics)]
    return Table(columns, rows, "networks")


def _spread(values: Sequence[float | None], metric: str) -> str:
    """Over those that are known: a run that diverged has no likelihood."""
    known = [value for value in values if value is not None]
    return spread(known, metric) if known else "–"


def markdown(about: Study, runs: Sequence[Run], part: str = "test") -> str:
    """The tables for the docs, for each condition; `part` as in `arms`."""
    text = []
    for condition in specification.conditions(about):
        here = [run for run in runs if run["setting"] == condition]
        text += [f"**{in_table(specification.label(condition))}**", ""] if condition else []
        shown = (
            arms(about, here, part).without(*BEHIND),
            pairs(about, here, part),
            teachers(about, here, part).without("better on", "sign p", "t p", "teacher ECE", "student ECE", "network"),
            networks(about, here, part),
        )
        for one in shown:
            text += [table.markdown(one), ""] if one.rows else []
    return "\n".join(text)
