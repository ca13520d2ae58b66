"""`metapl eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metapl.cli.predict import tell_of
from metapl.cli.tell import TrustCode
from metapl.registry.errors import InputError

HELP = """Evaluate the networks of a finished run once more, from its files."""

DataOption = typer.Option(
    help="Fresh examples with labels, in place of a part: class folders, images with labels.csv, a table, an .npz.",
    show_default=False,
)

PARTS = ("test", "validation")


def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder that `metapl train` wrote.")],
    part: Annotated[str, typer.Option(help="test or validation.")] = "test",
    data: Annotated[list[Path] | None, DataOption] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    json: Annotated[Path | None, typer.Option(help="Write the metrics to this file too.", show_default=False)] = None,
    trust_code: TrustCode = False,
) -> None:
    """See HELP."""
    if part not in PARTS:
        raise InputError(f"--part {part} must be test or validation")
    from metapl.cli import display  # noqa: PLC0415 - imports torch
    from metapl.training import checkpoint, phases, run_folder  # noqa: PLC0415 - imports torch

    if data:
        rows, count = _fresh(run, data, device, trust_code)
        title = f"{count:,} fresh examples, networks of {run}"
    else:
        experiment, networks = run_folder.load(run, device, trust_code)
        rows, title = phases.evaluate(experiment, networks, part), f"{part} of {run}"
    if not rows:
        raise InputError(f"{run} was trained with --validation 0, so that part is empty: use --part test")
    display.table([rows], title=title)
    if json is not None:
        checkpoint.write_json(json, rows)


def _fresh(run: Path, places: list[Path], device: str, trust_code: bool) -> tuple[dict[str, dict[str, float]], int]:
    """The metrics of every network of the run, and the number of examples."""
    from metapl.data.examples import Problems  # noqa: PLC0415 - imports torch
    from metapl.serving import predict  # noqa: PLC0415 - imports torch
    from metapl.training import run_files, run_folder  # noqa: PLC0415 - imports torch

    rows, count, problems = {}, 0, Problems({}, {})
    for name in run_files.summary(run / "summary.json")["test"]:
        serving = run_folder.serve(run, name, device, trust_code)
        rows[name], count = predict.evaluate(serving, places, problems=problems)
    tell_of(problems)
    return rows, count
