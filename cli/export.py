"""`metapl export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metapl.cli.tell import TrustCode
from metapl.files.escape import visible

HELP = """Write a network of a finished run to a folder of its own: weights, configuration, model card, and a graph."""


def export(
    run: Annotated[Path, typer.Argument(help="A folder that `metapl train` wrote.")],
    out: Annotated[Path, typer.Option(help="The folder to write, which must not exist.", show_default=False)],
    kind: Annotated[
        str, typer.Option("--format", help="safetensors (weights alone), or with a graph: onnx or torch-export.")
    ] = "safetensors",
    network: Annotated[str, typer.Option(help="Which network of the run; the best by default.")] = "",
    trust_code: TrustCode = False,
) -> None:
    """See HELP."""
    from metapl.serving import export as exporter  # noqa: PLC0415 - imports torch

    for file in exporter.export(run, out, kind, network, trust_code):
        typer.echo(visible(f"{file.stat().st_size:>12,} bytes  {file}"))
