"""What `metapl ablate` prints: where it stands, and the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from metapl.cli.display import console
from metapl.cli.tables import printed
from metapl.registry import launch
from metapl.studies import execution, folder, specification, tables
from metapl.studies.execution import Run
from metapl.studies.specification import Job, Study


class Bar:
    """One bar for all runs: as a context manager it gives itself, and `tick` says how far they are."""

    def __init__(self, jobs: Sequence[Job], out: Path) -> None:
        done = len(execution.read(jobs, out / folder.RUNS))
        arms = len({job.arm for job in jobs})
        console.print(f"study      {len(jobs)} runs of {arms} arms" + (f", {done} of them done before" if done else ""))
        console.print(f"folder     {out}")
        self._bars = Progress(
            TextColumn("runs"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
        )
        self._total = len(jobs)
        self._task = self._bars.add_task("runs", total=len(jobs), completed=done, text="")

    def __enter__(self) -> Bar:
        """Show the bar."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave it as it stands."""
        if kind is None and launch.processes() == 1:  # else the others may still be at theirs
            self._bars.update(self._task, completed=self._total, text="")
        self._bars.stop()

    def say(self, text: str) -> None:
        """A line above the bar."""
        console.print(text)

    def tick(self, at: execution.Progress) -> None:
        """Say what is being trained."""
        text = f"{at.runs} runs of {at.name}: {at.phase} {at.step}/{at.steps}"
        self._bars.update(self._task, text=text, completed=at.done)


def show(about: Study, runs: Sequence[Run], out: Path, seconds: float) -> None:
    """The tables, and where the rest is."""
    for condition in specification.conditions(about):
        here = [run for run in runs if run["setting"] == condition]
        shown = tables.arms(about, here).without(*tables.BEHIND)
        console.print(printed(shown, specification.label(condition)))
    console.print(f"{seconds:.0f} s; {tables.NOTE}")
    for name in ("index.html", "plots/arms.png", "table.md", "runs.jsonl"):
        console.print(f"{name:<14} {out / name}")
