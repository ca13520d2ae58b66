"""`metapl report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metapl.cli.tell import TrustCode
from metapl.registry.errors import InputError

HELP = """Write one HTML page about a finished run: results, curves, calibration, mistakes, split, configuration."""

OutOption = typer.Option(help="The file to write. \\[default: RUN/report.html]", show_default=False)


def report(
    run: Annotated[Path, typer.Argument(help="A folder that `metapl train` wrote.")],
    out: Annotated[Path | None, OutOption] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    trust_code: TrustCode = False,
) -> None:
    """See HELP."""
    place = out or run / "report.html"
    if place.is_dir() or place.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {place} must be a file that ends in .html: name one")
    from metapl import reporting  # noqa: PLC0415 - imports torch
    from metapl.cli import display  # noqa: PLC0415 - imports torch
    from metapl.training import checkpoint  # noqa: PLC0415 - imports torch

    # Names in the data may hold what no encoding has, such as the bytes of a file name that is no text.
    page = reporting.report(run, device, trust_code).encode(errors="xmlcharrefreplace")
    checkpoint.write(place, lambda temporary: temporary.write_bytes(page))
    display.console.print(f"report     {place} ({len(page) / 1000:,.0f} kB)")
