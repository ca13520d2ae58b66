"""A study as one HTML page: tables, every run as a dot, curves, what the arms are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from metapl.files.table import Column, Table, whole
from metapl.reporting import render, study_figures
from metapl.reporting.blocks import Block, Card, Code, Grid, Head, Paragraph, Rows, Section, Words
from metapl.reporting.head import environment as versions
from metapl.reporting.head import value_text
from metapl.reporting.names import NETWORKS
from metapl.reporting.study_figures import accuracy, headed, over_steps, pseudo_labels
from metapl.studies import results, specification, tables
from metapl.studies.checks import Given
from metapl.studies.execution import Run
from metapl.studies.specification import Study
from metapl.training.config import TrainConfig

JUDGED = (
    "All numbers but those of the curves are of the test set, after the last step. No step and no network was chosen "
    "on it; the options are those that the study was given."
)
"""What the numbers of a study are of."""

EXPLAINED = {
    "top-1": "the share of test examples whose class is the most probable one: mean and sample standard deviation, sd, "
    "over seeds.",
    "difference": "the arm less the one that it is compared with, seed by seed, in points: mean and 95 % confidence "
    "interval, by Student's t.",
    "better on": "seeds on which the arm is better, of those on which the two differ.",
    "sign p, t p": "two-sided p-values of the sign test and of the paired t-test, as they are: not corrected for the "
    "number of arms and conditions.",
    "NLL": "the negative log-likelihood, in nats, mean over seeds.",
    "ECE": "the expected calibration error: how far confidence and accuracy are apart, in 15 bins; mean over seeds.",
}
"""What each column means."""


def page(about: Study, runs: Sequence[Run], environment: Mapping[str, Any]) -> str:
    """The HTML page about a study.

    Args:
        about: the study.
        runs: those that are finished, with their logs.
        environment: versions and machine, see `metapl.training.machine.environment`.
    """
    conditions = specification.conditions(about)
    by_condition = [[run for run in runs if run["setting"] == condition] for condition in conditions]
    sections = [
        _results(about, by_condition),
        _teachers(about, by_condition),
        _training(about, by_condition),
        _configuration(about, environment),
    ]
    return render.page(_head(about, runs), [one for one in sections if one])


def _title(about: Study) -> str:
    first, *others = {job.config.data for job in specification.jobs(about)}
    where = "" if others else f" on {Path(first).name or first}"
    return f"Study of {_count(len(about.arms), 'arm')}{where}"


def _count(count: int, name: str) -> str:
    return f"{whole(count)} {name}{'s' * (count != 1)}"


def _head(about: Study, runs: Sequence[Run]) -> Head:
    conditions, jobs = specification.conditions(about), specification.jobs(about)
    where = f" in each of {len(conditions)} conditions" if len(conditions) > 1 else ""
    lede = (
        f"{_count(len(about.arms), 'arm')} with {_count(len(about.seeds), 'seed')} each{where}. The runs of a seed "
        "share split, initial weights, batches and views, so that arms are compared in pairs, with the arm "
    )
    facts = {
        "runs": f"{whole(len(runs))} of {whole(len(jobs))} finished",
        "diverged": whole(sum(not run["finite"] for run in runs)),
        "seeds": f"{about.seeds[0]} to {about.seeds[-1]}" if len(about.seeds) > 1 else str(about.seeds[0]),
        "steps": ", ".join(whole(steps) for steps in sorted({job.config.steps for job in jobs})),
    }
    return Head(_title(about), (lede, Code(about.against), "."), facts)


def _results(about: Study, by_condition: Sequence[Sequence[Run]]) -> Section:
    parts = [
        part
        for condition, here in zip(specification.conditions(about), by_condition, strict=True)
        for part in _condition(about, condition, here)
    ]
    return Section("Results", [Paragraph(JUDGED), *parts, Card("How to read this", [Words(EXPLAINED)])])


def _condition(about: Study, condition: Given, here: Sequence[Run]) -> list[Block]:
    """The tables of a condition, and its pictures."""
    rows = results.rows(about, here)
    missing = [arm for arm in about.arms if arm not in {row.arm for row in rows}]
    note = [Paragraph(f"Without a finished run: {', '.join(missing)}.")] if missing else []
    if not rows:
        return [Card(headed(condition, "every arm"), note)]
    numbers = _dressed(tables.arms(about, here), "test metrics by arm", condition)
    compared = _dressed(tables.pairs(about, here), "arms against each other", condition)
    others = [Card(headed(condition, "against each other"), [compared])] if compared.table.rows else []
    pictures = [study_figures.runs(about, rows), study_figures.differences(about, rows)]
    return [
        Card(headed(condition, "every arm"), [numbers, *note, *_diverged(here)]),
        *others,
        Grid([one for one in pictures if one]),
    ]


def _dressed(found: Table, label: str, condition: Given) -> Rows:
    """A table of a study as a page has it: networks by their titles, the arm that is compared with named as such."""
    columns = [Column("difference", *column[1:]) if "−" in column.title else column for column in found.columns]
    rows = []
    for row in found.rows:
        cells = dict(zip(found.titles, row, strict=True))
        if "network" in cells:
            cells["network"] = NETWORKS[cells["network"]][0]
        missing = [title for title, value in cells.items() if value is None]
        rows.append([*(cells | dict.fromkeys(missing[:1], "reference")).values()])
    return Rows(Table(columns, rows, f"{label}, {specification.label(condition) or 'all seeds'}"))


def _diverged(here: Sequence[Run]) -> list[Block]:
    seeds: dict[str, list[str]] = {}
    for run in here:
        if not run["finite"]:
            seeds.setdefault(run["arm"], []).append(str(run["seed"]))
    if not seeds:
        return []
    arms = ", ".join(f"{arm} (seed{'s' * (len(mine) > 1)} {', '.join(mine)})" for arm, mine in seeds.items())
    text = (
        f"Diverged, so that weights are not finite at the end: {arms}. These runs count as what they predict; NLL and "
        "ECE are of those that have one."
    )
    return [Paragraph(text, "warning")]


def _teachers(about: Study, by_condition: Sequence[Sequence[Run]]) -> Section | None:
    """How the teacher and the student that is judged do at the end; None where no arm has a teacher."""
    cards = []
    for condition, here in zip(specification.conditions(about), by_condition, strict=True):
        found = tables.teachers(about, here).without("pseudo labels right")
        if found.rows:
            numbers = _dressed(found, "teacher and student", condition)
            cards.append(Card(headed(condition, "arms with a teacher, %"), [numbers]))
    note = Paragraph(
        "Top-1 and ECE of the two networks of a run on the test set, means over seeds; the difference is that of the "
        "student to its own teacher."
    )
    return Section("Teacher and student", [note, *cards]) if cards else None


def _training(about: Study, by_condition: Sequence[Sequence[Run]]) -> Section | None:
    """Curves of the last phase but for finetuning; None where nothing was seen on the way."""
    grids = []
    for here in by_condition:
        found = [
            over_steps(about, here, "validation accuracy", "top-1, %", accuracy),
            over_steps(about, here, "pseudo labels", "right, %", pseudo_labels),
        ]
        if any(found):
            grids.append(Grid([one for one in found if one]))
    note = Paragraph(
        "Means over seeds, before any finetuning. Validation accuracy is that of the averaged weights of the student, "
        "or of the only network, on labelled examples that are held out; pseudo labels are the teacher's."
    )
    return Section("Training", [note, *grids]) if grids else None


def _configuration(about: Study, environment: Mapping[str, Any]) -> Section:
    """What is common, what is varied, what makes an arm, and where it was made."""
    meaning = {one.name: one.metadata["help"].replace("`", "") for one in fields(TrainConfig)}
    common = [(key, value_text(value), meaning[key]) for key, value in about.common.items() if key not in about.over]
    over = [(key, ", ".join(map(value_text, values))) for key, values in about.over.items()]
    arms = [(arm, _given(given)) for arm, given in about.arms.items()]
    option = Column("option", look="code")
    shared = Table([option, Column("value", look="code"), Column("meaning")], common, "common options")
    varied = Table([option, Column("values", look="code")], over, "conditions")
    boxes = [
        Card("Arms", [Rows(Table([Column("arm", look="name"), Column("what it sets", look="code")], arms, "arms"))]),
        *([Card("Conditions", [Rows(varied)])] if over else []),
        Card("Common", [Rows(shared) if common else Paragraph("The defaults.")]),
        versions(environment),
    ]
    seeds = f"{_count(len(about.seeds), 'seed')} an arm and condition. {JUDGED}"
    return Section("Configuration", [Paragraph(seeds), *boxes])


def _given(given: Given) -> str:
    return ", ".join(f"{key} = {value_text(value)}" for key, value in given.items()) or "nothing"
