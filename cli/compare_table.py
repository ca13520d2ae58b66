"""The tables of `metapl compare`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from metapl.cli.display import console
from metapl.cli.tables import printed
from metapl.evaluation.quality import Accuracy
from metapl.files.table import Column, Table
from metapl.studies import comparison
from metapl.studies.comparison import Plan, Report, Row
from metapl.studies.snapshot import Stage


def show(stage: Stage, report: Report, plan: Plan) -> None:
    """Where it was measured, accuracy, cost, and what was left out."""
    config = stage.experiment.config
    console.print(
        f"point      {config.data}, {len(stage.experiment.split.labelled)} labels, {config.model}, {config.optimizer}, "
        f"seed {config.seed}: "
        f"after {stage.step} steps, {config.unroll} of the student for one of the teacher"
    )
    for kind, found in report.truths.items():
        console.print(
            f"truth      {kind} labels: exact feedback, {report.numbers:,} numbers"
            + ("" if found.draws == 1 else f", mean of {found.draws:,} draws; cosine to soft {found.cosine:.4f}")
        )
    console.print(printed(_table(ACCURACY, report.rows, _accuracy), whole_names=True))
    target = tuple(f"{unit} to {plan.cosine:g}" for unit in ("draws", "FLOPs", "time"))
    console.print(printed(_table((*COST, *target), report.rows, _cost), whole_names=True))
    console.print(NOTE)
    for name, reason in report.left_out.items():
        console.print(f"left out   {name}: {reason}")


NOTE = """cosine        of the mean of infinitely many draws to the exact gradient, noise taken out; ± a standard error
projection    of that mean on the exact gradient, bias, and variance of one draw: in units of its length, or its square
FLOPs, time   of one draw, and of as many as it takes; 1 is a call of `none`, the student's own step and the exam
memory        at most held beyond what was there before"""


ACCURACY = ("labels", "cosine", "of one draw", "projection", "bias", "variance")
COST = ("FLOPs", "time", "memory")


def _table(titles: Sequence[str], rows: Sequence[Row], cells: Callable[[Row], list[str]]) -> Table:
    columns = [Column("--grad"), *(Column(title, look="figure") for title in titles)]
    return Table(columns, [(row.name, *cells(row)) for row in rows])


def _accuracy(row: Row) -> list[str]:
    found = row.accuracy
    return [
        row.labels,
        _with_error(found.cosine, found.cosine_error),
        _number(found.cosine_one),
        _with_error(found.projection, found.projection_error),
        _bias(found),
        f"{found.variance:.3g}",
    ]


def _cost(row: Row) -> list[str]:
    cost, reached = row.cost, comparison.reach(row)
    return [
        _number(cost.flops_ratio, 2),
        f"{cost.time_ratio:.3g} [{cost.time_low:.3g}–{cost.time_high:.3g}]",
        _bytes(cost.peak_memory_bytes),
        _draws(row.accuracy),
        _count(reached["flops_to_reach"]),
        _seconds(reached["milliseconds_to_reach"] / 1e3),
    ]


def _number(value: float, digits: int = 3) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _with_error(value: float, error: float) -> str:
    return f"{value:.3f} ± {_number(error)}" if error and not math.isnan(value) else _number(value)


def _bias(found: Accuracy) -> str:
    """With its error, or what it is below where it does not differ from zero."""
    if found.bias_square < found.bias_square_error:
        return f"< {found.bias + found.bias_error:.3f}"
    return _with_error(found.bias, found.bias_error)


def _draws(found: Accuracy) -> str:
    if found.draws_low == found.draws_high:
        return _count(found.draws_needed)
    if not math.isfinite(found.draws_needed):
        return f"> {_count(found.draws_low)}"
    return f"{_count(found.draws_needed)} [{_count(found.draws_low)}–{_count(found.draws_high)}]"


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.0f} KiB"


def _count(value: float) -> str:
    if not math.isfinite(value):
        return "∞"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    if not math.isfinite(value):
        return "∞"
    return f"{value:,.1f} s" if value >= 1 else f"{1e3 * value:,.1f} ms"
