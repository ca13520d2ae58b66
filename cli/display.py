"""What the verbs print: headers, progress bars, tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from metapl import experiment, plots, train, tree
from metapl.experiment import Result, Rows
from metapl.setting import Setting
from metapl.types import Model

ROWS = {
    "supervised": "supervised only",
    "pseudo-labels": "pseudo labels",
    "uda": "UDA",
    "teacher": "teacher",
    "student": "student",
    "ema": "student, averaged",
    "finetuned": "finetuned",
}
"""Networks in the order of the table, with what they are called there."""

SHORT = {"supervised": "sup", "student": "stu", "feedback": "fb"}

WIDTH = 130
"""Columns where the output is not a terminal, such as a log file."""

console = Console(soft_wrap=True, markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def header(setting: Setting, folder: Path) -> None:
    """What is about to be trained, on what."""
    config, parts = setting.config, setting.split
    shared = "the labelled ones among them" if config.labelled_in_unlabelled else "the labelled ones apart"
    console.print(
        f"data       {config.data}, {setting.data.classes} classes: {len(parts.labelled)} labelled, "
        f"{len(parts.unlabelled)} unlabelled ({shared}), {len(parts.validation)} validation, "
        f"{len(setting.data.y_test)} test"
    )
    console.print(f"networks   {', '.join(_network(*one, setting) for one in _networks(setting))}")
    if config.method == "mpl":
        weight = "cosine-normalised" if config.cosine else "raw"
        console.print(
            f"feedback   {config.grad} (claim: {setting.estimator.claim}), {setting.labels} labels, "
            f"{weight}, weight {config.feedback_weight:g}"
        )
    console.print(f"device     {setting.data.x.device}, seed {config.seed}")
    console.print(f"run        {folder}")


def _networks(setting: Setting) -> list[tuple[str, str, Model]]:
    config = setting.config
    if config.method != "mpl":
        return [("network", config.model, setting.student)]
    return [
        ("teacher", config.teacher_model or config.model, setting.teacher),
        ("student", config.model, setting.student),
    ]


def _network(role: str, text: str, model: Model, setting: Setting) -> str:
    return f"{role} {text} ({tree.size(model.init(setting.keys.mpl)[0]):,} parameters)"


class Bars:
    """Progress bars, one a phase, and the log: as a context manager it gives the function to report to."""

    def __init__(self, setting: Setting, log: Path) -> None:
        self._setting = setting
        self._log = log
        self._tasks: dict[str, Any] = {}
        self._bars = Progress(
            TextColumn("{task.description}", table_column=Column(min_width=13, no_wrap=True)),
            BarColumn(bar_width=12),
            MofNCompleteColumn(table_column=Column(min_width=9, no_wrap=True)),
            TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
        )

    def __enter__(self) -> Bars:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave them as they stand."""
        self._bars.stop()

    def __call__(self, progress: train.Progress) -> None:
        """Evaluate on the validation part, log a line, move the bar."""
        validation = experiment.evaluate(self._setting, progress.networks, "validation")
        line = {
            "phase": progress.phase,
            "step": progress.step,
            "metrics": progress.metrics,
            "validation": validation,
            "images_per_second": progress.images_per_second,
        }
        with self._log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if progress.phase not in self._tasks:
            self._tasks[progress.phase] = self._bars.add_task(progress.phase, total=progress.steps, text="")
        self._bars.update(self._tasks[progress.phase], completed=progress.step, text=_text(progress, validation))


def _text(progress: train.Progress, validation: Rows) -> str:
    losses = " ".join(f"{SHORT.get(name, name)} {value:.3f}" for name, value in progress.metrics.items())
    shown = "ema" if "ema" in validation else "model"
    accuracy = f" | val {100 * validation[shown]['top1']:.1f} %" if shown in validation else ""
    return f"{losses}{accuracy} | {progress.images_per_second:,.0f} img/s"


def table(rows: Rows, title: str) -> None:
    """Metrics by network."""
    printed = Table(title=title, title_justify="left")
    printed.add_column("network")
    for name in ("top-1 %", "NLL", "ECE %"):
        printed.add_column(name, justify="right")
    for name, text in ROWS.items():
        if name in rows:
            row = rows[name]
            printed.add_row(text, f"{100 * row['top1']:.2f}", f"{row['nll']:.3f}", f"{100 * row['ece']:.2f}")
    console.print(printed)


def pictures(setting: Setting, result: Result, folder: Path) -> None:
    """The curves, and for data in the plane the decision regions."""
    plots.curves(folder / "metrics.jsonl", folder / "plots" / "curves.png")
    if tuple(setting.data.x.shape[1:]) != (2,):
        return
    wanted = {"supervised": "supervised", "pseudo-labels": "pseudo labels", "uda": "UDA", "ema": "Meta Pseudo Labels"}
    shown = {wanted[name]: (setting.student, result.networks[name]) for name in wanted if name in result.networks}
    points = (setting.data.x, setting.data.y)
    plots.regions(shown, points, setting.split.labelled, folder / "plots" / "regions.png")


def footer(summary: dict[str, Any], folder: Path) -> None:
    """Time, memory and where to look next."""
    console.print(f"{summary['seconds']:.0f} s, at most {summary['peak_memory_bytes'] / 2**20:,.0f} MiB of memory")
    for picture in sorted((folder / "plots").glob("*.png")):
        console.print(f"picture    {picture}")
    console.print(f"again      metapl eval {folder}")
