"""What the verbs print: headers, progress bars, tables."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text
from torch import Tensor

from metapl.cli.streams import OUTPUT
from metapl.core import tree
from metapl.core.types import Model
from metapl.files.escape import visible
from metapl.registry.errors import InputError
from metapl.reporting import plots
from metapl.training import loggers, loop, phases
from metapl.training.config import PAIRED
from metapl.training.experiment import Experiment
from metapl.training.phases import Result, Rows

ROWS = {
    "supervised": "supervised only",
    "pseudo-labels": "pseudo labels",
    "uda": "UDA",
    "fixed": "fixed teacher",
    "teacher": "teacher",
    "student": "student",
    "ema": "student, averaged",
    "finetuned": "finetuned",
}
"""Networks in the order of the table, with what they are called there."""

SHORT = {"supervised": "sup", "student": "stu", "feedback": "fb"}

WIDTH = 130
"""Columns where the output is not a terminal, such as a log file."""


class Careful(Console):
    """A console that writes out what a terminal would obey, wherever it stands; its own colours stay."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Text of a stranger, as wide as it will be."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """What did not come as a string, such as the columns of a progress bar."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


console = Careful(
    file=OUTPUT,  # type: ignore[arg-type]  # it has what rich uses of a file
    soft_wrap=True,
    markup=False,
    highlight=False,
    width=None if OUTPUT.isatty() else WIDTH,
)


def header(experiment: Experiment, folder: Path, seeds: Sequence[int] = ()) -> None:
    """What is about to be trained, on what; with several seeds the setting is that of the first."""
    config, parts = experiment.config, experiment.split
    shared = "the labelled ones among them" if config.labelled_in_unlabelled else "the labelled ones apart"
    console.print(
        f"data       {config.data}, {experiment.data.classes} classes: {len(parts.labelled)} labelled, "
        f"{len(parts.unlabelled)} unlabelled ({shared}), {len(parts.validation)} validation, "
        f"{len(experiment.data.y_test)} test"
    )
    console.print(f"networks   {', '.join(_network(*one, experiment) for one in _networks(experiment))}")
    if config.method in PAIRED:
        console.print(
            f"feedback   {config.grad} (claim: {experiment.estimator.claim}), {experiment.labels} labels, "
            f"size {config.feedback_size}, weight {config.feedback_weight:g}"
        )
    told = f"{len(seeds)} seeds from {seeds[0]} on" if seeds else f"seed {config.seed}"
    console.print(f"device     {experiment.device}, {told}")
    console.print(f"run        {folder}")


def _networks(experiment: Experiment) -> list[tuple[str, str, Model]]:
    config = experiment.config
    if config.method not in PAIRED:
        return [("network", config.model, experiment.models.student)]
    return [
        ("teacher", config.teacher_model or config.model, experiment.models.teacher),
        *([("calibrator", config.calibrator, experiment.models.calibrator)] if config.method == "reduced" else []),
        ("student", config.model, experiment.models.student),
    ]


def _network(role: str, text: str, model: Model, experiment: Experiment) -> str:
    params, buffers = model.init(experiment.keys.mpl)
    frozen = sum(buffers[name].numel() for name in model.frozen)
    some = f", {tree.size(params):,} of them trained" if frozen else ""
    return f"{role} {text} ({tree.size(params) + frozen:,} parameters{some})"


class Bars:
    """Progress bars, one a phase, and the logs of each run: as a context manager it gives itself, to report to."""

    def __init__(self, experiments: Sequence[Experiment], folders: Sequence[Path]) -> None:
        self._settings = experiments
        self._logs = [loggers.start(one.config, folder) for one, folder in zip(experiments, folders, strict=True)]
        self._tasks: dict[str, Any] = {}
        self._started: dict[str, float] = {}
        self._bars = Progress(
            TextColumn("{task.description}", table_column=Column(min_width=13, no_wrap=True)),
            BarColumn(bar_width=12),
            MofNCompleteColumn(table_column=Column(min_width=9, no_wrap=True)),
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
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
        for log in itertools.chain(*self._logs):
            try:
                log.close()
            except InputError as missing:  # the run is worth more than its log
                console.print(f"log        {missing}")

    def tick(self, phase: str, step: int, steps: int) -> None:
        """Move the bar; the time left is what the steps so far, with their evaluations, took on average."""
        now = time.perf_counter()
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=steps, completed=step, text="", left="")
        if step == 1:
            self._started[phase] = now  # the first step has costs of its own
            return
        left = (now - self._started[phase]) / (step - 1) * (steps - step)
        self._bars.update(self._tasks[phase], completed=step, left=f"{duration(left)} left" if steps > step else "")

    def tick_of(self, index: int, phase: str, step: int, steps: int) -> None:
        """Move the bar of the phase, whichever run it is of: they go together, or one after another."""
        del index
        self.tick(phase, step, steps)

    def report(self, index: int, progress: loop.Progress) -> None:
        """Evaluate a run on the validation part, and log."""
        line = phases.look(self._settings[index], progress)
        for log in self._logs[index]:
            log.write({**line, "images_per_second": progress.images_per_second})
        self._bars.update(self._tasks[progress.phase], text=_text(progress, line["validation"]))


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, rounded."""
    minutes = int(seconds / 60 + 0.5)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _text(progress: loop.Progress, validation: Rows) -> str:
    losses = " ".join(f"{SHORT.get(name, name)} {value:.3f}" for name, value in progress.metrics.items())
    shown = validation.get("ema") or next(iter(validation.values()), None)
    accuracy = f" | val {100 * shown['top1']:.1f} %" if shown else ""
    return f"{losses}{accuracy} | {progress.images_per_second:,.0f} img/s"


def apart(runs: int, why: str) -> None:
    """Say why runs do not train together."""
    console.print(f"one after another: {runs} runs, since {why}")


def title(experiment: Experiment, runs: int) -> str:
    """The title of a table of a run's end."""
    several = f", mean ± standard deviation of {runs} seeds" if runs > 1 else ""
    return f"test, {len(experiment.data.y_test)} examples, final weights{several}"


COLUMNS = {"top1": ("top-1 %", 100, 2), "top5": ("top-5 %", 100, 2), "nll": ("NLL", 1, 3), "ece": ("ECE %", 100, 2)}
"""Metrics in the order of the table: the heading, the unit and the decimals."""


def table(runs: Sequence[Rows], title: str) -> None:
    """Metrics by network; of several runs their mean ± standard deviation."""
    printed = Table(title=title, title_justify="left")
    printed.add_column("network")
    for heading, _, _ in COLUMNS.values():
        printed.add_column(heading, justify="right")
    for name, text in ROWS.items():
        if name in runs[0]:
            printed.add_row(text, *(_cell([rows[name][metric] for rows in runs], metric) for metric in COLUMNS))
    console.print(printed)


def _cell(values: Sequence[float], metric: str) -> str:
    _, unit, digits = COLUMNS[metric]
    mean = f"{unit * statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {unit * statistics.stdev(values):.{digits}f}"


def pictures(experiment: Experiment, result: Result, folder: Path) -> None:
    """The curves, and for data in the plane the decision regions."""
    plots.curves(folder / "metrics.jsonl", folder / "plots" / "curves.png")
    if experiment.data.form.shape != (2,) or not isinstance(experiment.data.x, Tensor):
        return
    wanted = {"supervised": "supervised", "pseudo-labels": "pseudo labels", "uda": "UDA", "ema": "Meta Pseudo Labels"}
    shown = {
        wanted[name]: (experiment.models.student, result.networks[name]) for name in wanted if name in result.networks
    }
    points = (experiment.data.x, experiment.data.y)
    plots.regions(shown, points, experiment.split.labelled, folder / "plots" / "regions.png")


def footer(summary: dict[str, Any], folder: Path) -> None:
    """Time, memory and where to look next."""
    console.print(f"{summary['seconds']:.0f} s, at most {summary['peak_memory_bytes'] / 2**20:,.0f} MiB of memory")
    for picture in sorted((folder / "plots").glob("*.png")):
        console.print(f"picture    {picture}")
    for verb, text in (("eval", ""), ("report", ""), ("predict", " FILES")):
        console.print(f"{verb:<10} metapl {verb} {folder}{text}")
