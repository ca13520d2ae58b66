"""What the verbs print: headers, progress bars, tables."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.segment import Segment
from rich.status import Status
from rich.table import Column
from rich.text import Text
from torch import Tensor

from metapl import methods
from metapl.cli.described import described
from metapl.cli.streams import OUTPUT
from metapl.cli.tables import printed
from metapl.core import tree
from metapl.core.types import Model
from metapl.evaluation.table import by_network
from metapl.files.escape import visible
from metapl.registry.errors import InputError
from metapl.reporting import plots
from metapl.training import architectures, compiling, loggers, loop, lowering, phases, threads, watching
from metapl.training.choosing import Choice
from metapl.training.experiment import Experiment
from metapl.training.phases import Result, Rows

SHORT = {"supervised": "sup", "student": "stu", "feedback": "fb"}

WIDTH = 130
"""Columns where the output is not a terminal, such as a log file."""


class Careful(Console):
    """A console that writes control characters of others out as text; its own colours stay."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Text from outside, with control characters written out, so that its width is known."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The same for what does not come as a string, such as the columns of a progress bar."""
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
    """Print what is about to be trained, and on what; of several seeds the first."""
    config, parts = experiment.config, experiment.split
    shared = "the labelled ones among them" if config.labelled_in_unlabelled else "the labelled ones apart"
    console.print(
        f"data       {config.data}, {experiment.data.classes} classes: {len(parts.labelled)} labelled, "
        f"{len(parts.unlabelled)} unlabelled ({shared}), {len(parts.validation)} validation, "
        f"{len(experiment.data.y_test)} test"
    )
    for line in described(experiment):
        console.print(line)
    if methods.guide_of(config):
        console.print(f"targets    guided by {config.guide}, {config.alignment} alignment")
    if found := _networks(experiment):
        console.print(f"networks   {', '.join(_network(*one, experiment) for one in found)}")
    if methods.find(config.method).paired:
        console.print(
            f"feedback   {config.grad} (claim: {experiment.estimator.claim}), {experiment.labels} labels, "
            f"size {config.feedback_size}, weight {config.feedback_weight:g}"
        )
    seeded = f"{len(seeds)} seeds from {seeds[0]} on" if seeds else f"seed {config.seed}"
    together = f", {experiment.processes.count} processes" if experiment.processes.count > 1 else ""
    together += ", each step compiled when first taken, which may take minutes" if config.compile else ""
    console.print(f"device     {threads.written(experiment.device)}, {seeded}{together}")
    console.print(f"run        {folder}")


def waiting(text: str) -> Status:
    """A line that is shown while something is done; a context manager."""
    return console.status(text)


def choice(found: Choice) -> None:
    """Print which method was chosen, on what, and how the others did."""
    console.print(f"method     {found.name}: {found.how}")
    if found.scores:
        console.print(f"           right: {', '.join(f'{one.name} {one.right}/{one.asked}' for one in found.scores)}")
    if found.hurts:
        console.print("           learning from the unlabelled examples was worse than from the labels alone")


def _networks(experiment: Experiment) -> list[tuple[str, str, Model]]:
    return [
        (role, architectures.text(experiment.config, field), getattr(experiment.models, field))
        for role, field in methods.find(experiment.config.method).models.items()
    ]


def _network(role: str, text: str, model: Model, experiment: Experiment) -> str:
    params, buffers = model.init(experiment.keys.root)
    frozen = sum(buffers[name].numel() for name in model.frozen)
    some = f", {tree.size(params):,} of them trained" if frozen else ""
    return f"{role} {text} ({tree.size(params) + frozen:,} parameters{some})"


class Bars:
    """Progress bars, one a phase, and the logs of each run, which began at `started`; a context manager."""

    def __init__(self, experiments: Sequence[Experiment], folders: Sequence[Path], started: float) -> None:
        self._experiments, self._began = experiments, started
        self._logs = [loggers.start(one.config, folder) for one, folder in zip(experiments, folders, strict=True)]
        self._tasks: dict[str, Any] = {}
        self._first: dict[str, tuple[int, float]] = {}
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
        """Stop the bars, and close the logs."""
        self._bars.stop()
        for log in itertools.chain(*self._logs):
            try:
                log.close()
            except InputError as missing:  # the run is worth more than its log
                console.print(f"log        {missing}")

    def show(self, index: int, event: phases.Event) -> None:
        """Show an event of a run, by the index of the run: move the bar, or evaluate and log."""
        match event:
            case loop.Stepped(phase, step, steps):
                self._move(phase, step, steps)
            case loop.Reported():
                self._report(index, event)
            case lowering.Lowered(phase, precision, cosine, length):
                far = "" if event.near else "; far from it: --precision float32 is safer"
                said = f"the first steps are those of float32 with a cosine of {cosine:.4f}, {length:.3f} as long"
                console.print(f"{phase:<14} {precision}: {said}{far}")
            case compiling.Compiled(phase, took):
                console.print(f"{phase:<14} the step is compiled, as one graph: the first took {duration(took)}")
            case phases.Chosen(phase, fitted) if len(self._experiments) == 1:
                console.print(f"{phase:<14} {fitted.chosen}")

    def _task(self, phase: str, step: int, steps: int) -> Any:
        """The bar of a phase, which begins where the phase does, or where it goes on."""
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=steps, completed=step, text="", left="")
            self._first[phase] = step, time.perf_counter()  # the first step has costs of its own
        return self._tasks[phase]

    def _move(self, phase: str, step: int, steps: int) -> None:
        """Move the bar; the time left follows from the average step so far, with its share of the evaluations."""
        task = self._task(phase, step, steps)
        first, then = self._first[phase]
        left = (time.perf_counter() - then) / max(step - first, 1) * (steps - step)
        text = f"{duration(left)} left" if first < step < steps else ""
        self._bars.update(task, completed=step, left=text)

    def _report(self, index: int, event: loop.Reported) -> None:
        """Evaluate a run on the validation part, and log."""
        line = watching.look(self._experiments[index], event)
        seconds = time.perf_counter() - self._began
        for log in self._logs[index]:
            log.write({**line, "images_per_second": event.images_per_second, "seconds": seconds})
        self._bars.update(self._task(event.phase, event.step, event.steps), text=_text(event, line["validation"]))


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, rounded."""
    minutes = int(seconds / 60 + 0.5)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _text(event: loop.Reported, validation: Rows) -> str:
    losses = " ".join(f"{SHORT.get(name, name)} {value:.3f}" for name, value in event.metrics.items())
    shown = validation.get("ema") or next(iter(validation.values()), None)
    accuracy = f" | val {100 * shown['top1']:.1f} %" if shown else ""
    return f"{losses}{accuracy} | {event.images_per_second:,.0f} img/s"


def apart(runs: int, why: str) -> None:
    """Say why runs do not train together."""
    console.print(f"one after another: {runs} runs, since {why}")


def title(experiment: Experiment, runs: int) -> str:
    """The title of a table of a run's end."""
    several = f", mean ± standard deviation of {runs} seeds" if runs > 1 else ""
    return f"test, {len(experiment.data.y_test)} examples, final weights{several}"


def table(runs: Sequence[Rows], title: str) -> None:
    """Metrics by network; of several runs their mean ± standard deviation."""
    titles = {name: network.title for name, network in methods.networks().items()}
    console.print(printed(by_network(runs, titles), title))


def pictures(experiment: Experiment, result: Result, folder: Path) -> None:
    """The curves, and for data in the plane the decision regions."""
    plots.curves(folder / "metrics.jsonl", folder / "plots" / "curves.png")
    if experiment.data.form.shape != (2,) or not isinstance(experiment.data.x, Tensor):
        return
    shown = {}
    for phase in methods.plan(experiment.config):
        name = methods.best(() if phase.continues else phase.networks)
        if name:
            title = methods.find(phase.name).title if phase.name in methods.METHODS else phase.networks[name].title
            shown[title] = (experiment.models.of(name), result.networks[name])
    points = (experiment.data.x, experiment.data.y)
    plots.regions(shown, points, experiment.split.labelled, folder / "plots" / "regions.png")


def footer(summary: dict[str, Any], folder: Path, method: str) -> None:
    """Time, memory and what comes next."""
    name = methods.best(summary["test"], method)
    if found := summary.get("calibrated", {}).get(name):
        before, after = (f"{100 * one['ece']:.1f}" for one in (summary["test"][name], found))
        console.print(f"calibrated {name} by its temperature {found['temperature']:.2f}: ECE {before} % to {after} %")
    console.print(f"{summary['seconds']:.0f} s, at most {summary['peak_memory_bytes'] / 2**20:,.0f} MiB of memory")
    for picture in sorted((folder / "plots").glob("*.png")):
        console.print(f"picture    {picture}")
    for verb, text in (("eval", ""), ("report", ""), ("predict", " FILES --out predictions.csv"), ("suggest", "")):
        console.print(f"{verb:<10} metapl {verb} {folder}{text}")
