"""`metapl tune`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metapl import budget, study, trust
from metapl.cli.tell import TrustCode
from metapl.errors import InputError

if TYPE_CHECKING:
    from metapl.tune import Search

HELP = """Tune the hyperparameters of every arm of a study on the validation part, with the same budget for all.

The table \\[tune] of the study says what is tuned, and how long. It writes the study with the values found, for
`metapl ablate` to run on other seeds. The same command goes on where it was stopped."""

StudyArgument = typer.Argument(help="TOML file of the study.", show_default=False)
OutOption = typer.Option(help="Folder of the search; runs that it holds already are not made again.")
TogetherOption = typer.Option(help="Most runs that train as one vectorised program; 1: one after another.")


def tune(
    path: Annotated[Path, StudyArgument],
    *,
    out: Annotated[Path, OutOption],
    together: Annotated[int, TogetherOption] = 32,
    trust_code: TrustCode = False,
) -> None:
    """See HELP."""
    started = time.perf_counter()
    if together < 1:
        raise InputError(f"--together {together} must be at least 1")
    trust.require(study.load(path), f"study {path}", trust_code)
    wanted = study.read(path)
    allowed = budget.read(wanted, str(path))
    from metapl import tune as tuning  # noqa: PLC0415 - imports torch
    from metapl import tuned  # noqa: PLC0415 - imports torch
    from metapl.cli import ablate_table  # noqa: PLC0415 - imports torch

    searches = tuning.start(wanted, allowed, out)
    runs = study.jobs(wanted._replace(seeds=allowed.seeds)) * allowed.trials
    with ablate_table.Bar(runs, out) as bar:
        searches = tuning.run(searches, allowed, out, together, bar.say, bar.tick)
    show(searches, tuned.write(wanted, allowed, searches, out), time.perf_counter() - started)


def show(searches: Sequence[Search], paths: Sequence[Path], seconds: float) -> None:
    """What was found, and what to do with it."""
    from rich.table import Table  # noqa: PLC0415 - with those that import torch

    from metapl import tuned  # noqa: PLC0415 - imports torch
    from metapl.cli.display import console  # noqa: PLC0415 - imports torch

    printed = Table("setting", "arm", "values found")
    for name in ("trial", "validation top-1 %"):
        printed.add_column(name, justify="right")
    for search in searches:
        found = study.label(search.best.values)
        cells = study.label(search.setting), search.arm, found
        printed.add_row(*cells, f"{search.best.number}", tuned.gain(search))
    console.print(printed)
    console.print(f"{seconds:.0f} s; {NOTE}")
    console.print(f"trials     {paths[0].with_name('trials.jsonl')}")
    for path in paths:
        console.print(f"study      {path}")
        console.print(
            f"next       metapl ablate {shlex.quote(str(path))} --out {shlex.quote(str(path.with_suffix('')))}"
        )


NOTE = "mean over the seeds of the search, before → after; the best of many is flattered by them, so run it on others"
