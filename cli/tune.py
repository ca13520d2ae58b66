"""`metapl tune`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metapl.cli.tell import TrustCode
from metapl.registry import trust
from metapl.registry.errors import InputError
from metapl.studies import search_space, specification

if TYPE_CHECKING:
    from metapl.studies.search import Search

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
    trust.require(specification.load(path), f"study {path}", trust_code)
    wanted = specification.read(path)
    allowed = search_space.read(wanted, str(path))
    from metapl.cli import ablate_table  # noqa: PLC0415 - imports torch
    from metapl.studies import search as tuning  # noqa: PLC0415 - imports torch
    from metapl.studies import search_result  # noqa: PLC0415 - imports torch

    searches = tuning.start(wanted, allowed, out)
    runs = specification.jobs(wanted._replace(seeds=allowed.seeds)) * allowed.trials
    with ablate_table.Bar(runs, out) as bar:
        searches = tuning.run(searches, allowed, out, together, bar.say, bar.tick)
    show(searches, search_result.write(wanted, allowed, searches, out), time.perf_counter() - started)


def show(searches: Sequence[Search], paths: Sequence[Path], seconds: float) -> None:
    """What was found, and what to do with it."""
    from rich.table import Table  # noqa: PLC0415 - with those that import torch

    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.studies import search_result  # noqa: PLC0415 - imports torch

    printed = Table("setting", "arm", "values found")
    for name in ("trial", "validation top-1 %"):
        printed.add_column(name, justify="right")
    for search in searches:
        found = specification.label(search.best.values)
        cells = specification.label(search.condition), search.arm, found
        printed.add_row(*cells, f"{search.best.number}", search_result.gain(search))
    console.print(printed)
    console.print(f"{seconds:.0f} s; {NOTE}")
    console.print(f"trials     {paths[0].with_name('trials.jsonl')}")
    for path in paths:
        console.print(f"study      {path}")
        console.print(
            f"next       metapl ablate {shlex.quote(str(path))} --out {shlex.quote(str(path.with_suffix('')))}"
        )


NOTE = "mean over the seeds of the search, before → after; the best of many is flattered by them, so run it on others"
