"""`metapl report`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from metapl.cli.tell import TrustCode
from metapl.registry.errors import InputError

HELP = """Write one HTML page about a run: results, curves, calibration, mistakes, split, configuration.

Of a run that is not finished it shows what its last stored state gives."""

OutOption = typer.Option(help="The file to write. \\[default: RUN/report.html]", show_default=False)


def report(
    run: Annotated[Path, typer.Argument(help="A folder that `metapl train` wrote.")],
    out: Annotated[Path | None, OutOption] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    trust_code: TrustCode = False,
) -> None:
    """See HELP."""
    target = out or run / "report.html"
    if target.is_dir() or target.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {target} must be a file that ends in .html: name one")
    from metapl import reporting  # noqa: PLC0415 - imports torch
    from metapl.cli import display  # noqa: PLC0415 - imports torch
    from metapl.training import checkpoint, run_files, state_files, unfinished  # noqa: PLC0415 - imports torch

    if (run / run_files.SUMMARY).is_file() or not state_files.states(run):
        page = reporting.report(run, device, trust_code)
    else:
        with tempfile.TemporaryDirectory() as place:
            now = Path(place) / run.resolve().name
            step = unfinished.end_now(run, now, device, trust_code)
            note = f"The run is not finished: this is what it had after {step}."
            page = reporting.report(now, device, trust_code, note)
    # Names in the data may hold what no encoding has, such as the bytes of a file name that is no text.
    data = page.encode(errors="xmlcharrefreplace")
    checkpoint.write(target, lambda temporary: temporary.write_bytes(data))
    display.console.print(f"report     {target} ({len(data) / 1000:,.0f} kB)")
