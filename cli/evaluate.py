"""`metapl eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metapl.cli.tell import TrustCode
from metapl.registry.errors import InputError

HELP = """Evaluate the networks of a finished run once more, from its files."""

PARTS = ("test", "validation")


def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder that `metapl train` wrote.")],
    part: Annotated[str, typer.Option(help="test or validation.")] = "test",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    json: Annotated[Path | None, typer.Option(help="Write the metrics to this file too.", show_default=False)] = None,
    trust_code: TrustCode = False,
) -> None:
    """See HELP."""
    if part not in PARTS:
        raise InputError(f"--part {part} must be test or validation")
    from metapl.cli import display  # noqa: PLC0415 - imports torch
    from metapl.training import checkpoint, phases, run_folder  # noqa: PLC0415 - imports torch

    experiment, networks = run_folder.load(run, device, trust_code)
    rows = phases.evaluate(experiment, networks, part)
    if not rows:
        raise InputError(f"{run} was trained with --validation 0, so that part is empty: use --part test")
    display.table([rows], title=f"{part} of {run}")
    if json is not None:
        checkpoint.write_json(json, rows)
