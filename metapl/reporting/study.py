"""A study as one HTML page: tables, every run as a dot, curves, what the arms are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from metapl.reporting import study_figures
from metapl.reporting.names import NETWORKS
from metapl.reporting.page import Html, Section, card, grid, join, note, number, percent, plus, table, tag, whole
from metapl.reporting.page import page as document
from metapl.reporting.study_figures import accuracy, course, headed, pseudo_labels
from metapl.studies import paired, specification, tables
from metapl.studies.execution import Run
from metapl.studies.paired import Difference
from metapl.studies.specification import Given, Study
from metapl.studies.tables import Row
from metapl.training.config import TrainConfig

JUDGED = (
    "All numbers but those of the curves are of the test set, after the last step. No step and no network was chosen "
    "on it; the options are those that the study was given."
)

EXPLAINED = {
    "top-1": "the share of test examples whose class is the most probable one: mean and sample standard deviation, sd, "
    "over seeds.",
    "difference": "the arm less the one that it is compared with, seed by seed, in points: mean and 95 % confidence "
    "interval, by Student's t.",
    "better on": "seeds on which the arm is better, of those on which the two differ.",
    "sign p, t p": "two-sided p-values of the sign test and of the paired t-test, as they are: not corrected for the "
    "number of arms and settings.",
    "NLL": "the negative log-likelihood, in nats, mean over seeds.",
    "ECE": "the expected calibration error: how far confidence and accuracy are apart, in 15 bins; mean over seeds.",
}

COMPARED = ("difference", "better on", "sign p", "t p")

NAME = "display:inline-block;min-width:min(16ch,34vw);overflow-wrap:anywhere"
"""Of an arm in a table: long ones leave room for the numbers."""


def page(about: Study, runs: Sequence[Run], environment: Mapping[str, Any]) -> str:
    """The HTML page about a study.

    Args:
        about: the study.
        runs: those that are finished, with their logs.
        environment: versions and machine, see `metapl.training.run_folder.environment`.
    """
    by_setting = [[run for run in runs if run["setting"] == condition] for condition in specification.conditions(about)]
    sections = [
        _results(about, by_setting),
        _teachers(about, by_setting),
        _training(about, by_setting),
        _configuration(about, environment),
    ]
    # Names of arms are anyone's: in headings and notes too they break rather than widen the page.
    bodies = [Section(one.title, tag("div", one.body, style="overflow-wrap:break-word")) for one in sections if one]
    return document(_title(about), _head(about, runs), bodies)


def _title(about: Study) -> str:
    first, *others = {job.config.data for job in specification.jobs(about)}
    where = "" if others else f" on {Path(first).name or first}"
    return f"Study of {_count(len(about.arms), 'arm')}{where}"


def _count(count: int, name: str) -> str:
    return f"{whole(count)} {name}{'s' * (count != 1)}"


def _head(about: Study, runs: Sequence[Run]) -> Html:
    conditions, wanted = (
        specification.conditions(about),
        len(specification.conditions(about)) * len(about.arms) * len(about.seeds),
    )
    where = f" in each of {len(conditions)} settings" if len(conditions) > 1 else ""
    lede = (
        f"{_count(len(about.arms), 'arm')} with {_count(len(about.seeds), 'seed')} each{where}. The runs of a seed "
        "share split, initial weights, batches and views, so that arms are compared in pairs, with the arm "
    )
    told = {
        "runs": f"{whole(len(runs))} of {whole(wanted)} finished",
        "diverged": whole(sum(not run["finite"] for run in runs)),
        "seeds": f"{about.seeds[0]} to {about.seeds[-1]}" if len(about.seeds) > 1 else str(about.seeds[0]),
        "steps": ", ".join(whole(steps) for steps in sorted({job.config.steps for job in specification.jobs(about)})),
    }
    return join(
        tag("h1", _title(about)),
        tag("p", lede, tag("code", about.against), ".", class_="lede"),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", text)) for name, text in told.items()), class_="facts"),
    )


def _results(about: Study, by_setting: Sequence[Sequence[Run]]) -> Section:
    parts = [
        part
        for condition, here in zip(specification.conditions(about), by_setting, strict=True)
        for part in _condition(about, condition, here)
    ]
    words = (join(tag("dt", name), tag("dd", text)) for name, text in EXPLAINED.items())
    read = card(tag("h3", "How to read this"), tag("dl", *words, class_="words"))
    return Section("Results", join(note(JUDGED), *parts, read))


def _condition(about: Study, condition: Given, here: Sequence[Run]) -> list[Html]:
    """The table of a setting, and its pictures."""
    rows = tables.rows(about, here)
    missing = [arm for arm in about.arms if arm not in {row.arm for row in rows}]
    said = [note(f"Without a finished run: {', '.join(missing)}.")] if missing else []
    if not rows:
        return [card(tag("h3", headed(condition, "every arm")), *said)]
    columns = ("arm", "top-1 %", "sd", *COMPARED, "NLL", "ECE %", "seeds", "network")
    listed = [_cells(row, about, here) for row in rows]
    numbers = table(columns, listed, f"test metrics by arm, {specification.label(condition) or 'all seeds'}", (0, 10))
    pictures = [study_figures.runs(about, rows), study_figures.differences(about, rows)]
    return [
        card(tag("h3", headed(condition, "every arm")), numbers, *said, *_diverged(here)),
        *_pairs(about, condition, here),
        grid(*(one for one in pictures if one)),
    ]


def _pairs(about: Study, condition: Given, here: Sequence[Run]) -> list[Html]:
    """The further comparisons that the study asks for."""
    listed = [[_named(pair.arm), _named(pair.minus), *_compared(pair.difference)] for pair in tables.pairs(about, here)]
    label = f"arms against each other, {specification.label(condition) or 'all seeds'}"
    numbers = table(("arm", "minus", *COMPARED), listed, label, (0, 1)) if listed else ""
    return [card(tag("h3", headed(condition, "against each other")), numbers)] if listed else []


def _cells(row: Row, about: Study, here: Sequence[Run]) -> list[str]:
    deviation = row.deviation if len(row.seeds) > 1 else math.nan
    compared = ["reference", "", "", ""] if row.arm == about.against else _compared(row.difference)
    calibration = [_mean(here, row, "nll"), _mean(here, row, "ece")]
    last = [whole(len(row.seeds)), _network(row)]
    return [_named(row.arm), percent(row.mean), percent(deviation), *compared, *calibration, *last]


def _named(arm: str) -> Html:
    return tag("span", arm, style=NAME)


def _network(row: Row) -> Html:
    return tag("span", NETWORKS[row.network][0], style="white-space:nowrap")


def _compared(found: Difference | None) -> list[str]:
    """A difference in points with its interval, seeds that are better, and the two p-values."""
    if not found:
        return ["–"] * len(COMPARED)
    mean = plus(percent(found.mean))
    interval = mean if math.isnan(found.interval) else f"{mean} ± {percent(found.interval)}"
    return [interval, f"{found.wins} of {found.wins + found.losses}", _p(found.sign_p), _p(found.t_p)]


def _p(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g}"


def _mean(here: Sequence[Run], row: Row, metric: str, network: str = "") -> str:
    """Of a metric over seeds; a run that has diverged may not have one."""
    mine = [run["test"][network or row.network][metric] for run in here if run["arm"] == row.arm]
    known = [value for value in mine if value is not None]
    mean = statistics.fmean(known) if known else math.nan
    text = percent(mean) if metric == "ece" else number(mean)
    return text if len(known) in (0, len(mine)) else f"{text} ({len(known)} of {len(mine)})"


def _diverged(here: Sequence[Run]) -> list[Html]:
    seeds: dict[str, list[str]] = {}
    for run in here:
        if not run["finite"]:
            seeds.setdefault(run["arm"], []).append(str(run["seed"]))
    if not seeds:
        return []
    said = ", ".join(f"{arm} (seed{'s' * (len(mine) > 1)} {', '.join(mine)})" for arm, mine in seeds.items())
    text = (
        f"Diverged, so that weights are not finite at the end: {said}. These runs count as what they predict; NLL and "
        "ECE are of those that have one."
    )
    return [tag("p", text, class_="warning")]


def _teachers(about: Study, by_setting: Sequence[Sequence[Run]]) -> Section | None:
    """How the teacher and the student that is judged do at the end; None where no arm has a teacher."""
    cards = []
    for condition, here in zip(specification.conditions(about), by_setting, strict=True):
        pairs = [run for run in here if "teacher" in run["test"]]
        rows = zip(tables.rows(about, pairs), tables.rows(about, pairs, network="teacher"), strict=True)
        listed = [_pair(pairs, student, teacher) for student, teacher in rows]
        if listed:
            columns = ("arm", "teacher", "student", *COMPARED, "teacher ECE", "student ECE", "network")
            label = f"teacher and student, {specification.label(condition) or 'all seeds'}"
            numbers = table(columns, listed, label, (0, 9))
            cards.append(card(tag("h3", headed(condition, "arms with a teacher, %")), numbers))
    told = note(
        "Top-1 and ECE of the two networks of a run on the test set, means over seeds; the difference is that of the "
        "student to its own teacher."
    )
    return Section("Teacher and student", join(told, *cards)) if cards else None


def _pair(pairs: Sequence[Run], student: Row, teacher: Row) -> list[str]:
    found = paired.compare(student.values, teacher.values)
    shares = [percent(teacher.mean), percent(student.mean)]
    ece = [_mean(pairs, student, "ece", network) for network in ("teacher", student.network)]
    return [_named(student.arm), *shares, *_compared(found), *ece, _network(student)]


def _training(about: Study, by_setting: Sequence[Sequence[Run]]) -> Section | None:
    """Curves of the last phase but for finetuning; None where nothing was seen on the way."""
    grids = []
    for here in by_setting:
        found = [
            course(about, here, "validation accuracy", "top-1, %", accuracy),
            course(about, here, "pseudo labels", "right, %", pseudo_labels),
        ]
        if any(found):
            grids.append(grid(*(one for one in found if one)))
    told = note(
        "Means over seeds, before any finetuning. Validation accuracy is that of the averaged weights of the student, "
        "or of the only network, on labelled examples that are held out; pseudo labels are the teacher's."
    )
    return Section("Training", join(told, *grids)) if grids else None


def _configuration(about: Study, environment: Mapping[str, Any]) -> Section:
    """What is common, what is varied, what makes an arm, and where it was made."""
    meaning = {one.name: one.metadata["help"].replace("`", "") for one in fields(TrainConfig)}
    common = [
        [tag("code", key), tag("code", _value(value)), meaning[key]]
        for key, value in about.common.items()
        if key not in about.over
    ]
    over = [[tag("code", key), tag("code", ", ".join(map(_value, values)))] for key, values in about.over.items()]
    arms = [[_named(arm), tag("code", _given(given)) if given else "nothing"] for arm, given in about.arms.items()]
    where = [[name, str(value)] for name, value in environment.items() if value is not None]
    shared = table(("option", "value", "meaning"), common, "common options", range(3))
    boxes = [
        card(tag("h3", "Arms"), table(("arm", "what it sets"), arms, "arms", range(2))),
        *([card(tag("h3", "Settings"), table(("option", "values"), over, "settings", range(2)))] if over else []),
        card(tag("h3", "Common"), shared if common else note("The defaults.")),
        card(tag("h3", "Environment"), table(("what", "which"), where, "environment", range(2))),
    ]
    seeds = f"{_count(len(about.seeds), 'seed')} an arm and setting. {JUDGED}"
    return Section("Configuration", join(note(seeds), *boxes))


def _given(given: Given) -> str:
    return ", ".join(f"{key} = {_value(value)}" for key, value in given.items())


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "none"
