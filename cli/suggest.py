"""`metapl suggest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metapl.cli.tell import TrustCode
from metapl.registry.errors import InputError

HELP = """List what to label next: unlabelled examples whose labels would help most, and labels that look wrong.

As CSV, whose column `label` can be filled in for `metapl train --from RUN --more-labels FILE`, and as a page."""

DataOption = typer.Option(
    help="Files or folders of fresh examples without labels, in place of the run's own.", show_default=False
)
ByOption = typer.Option(help="margin, entropy, disagreement, diverse or effect, NAME:key=value,….")
OutOption = typer.Option(
    help="The CSV file to write, beside it the page. \\[default: RUN/suggestions.csv]", show_default=False
)


def suggest(  # noqa: PLR0913 - one flag a parameter
    run: Annotated[Path, typer.Argument(help="A folder that `metapl train` wrote.")],
    *,
    data: Annotated[list[Path] | None, DataOption] = None,
    by: Annotated[str, ByOption] = "margin",
    count: Annotated[int, typer.Option(help="Examples in either list, at most.", min=1)] = 40,
    out: Annotated[Path | None, OutOption] = None,
    network: Annotated[str, typer.Option(help="Which network of the run; the best by default.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    batch: Annotated[int, typer.Option(help="Examples predicted at a time.", min=1)] = 256,
    trust_code: TrustCode = False,
) -> None:
    """See HELP."""
    target = out or run / "suggestions.csv"
    page = target.with_suffix(".html")
    if target.suffix.lower() != ".csv":
        raise InputError(f"--out {target} must be a file that ends in .csv: name one")
    if target.exists():  # somebody may have filled it in
        raise InputError(f"--out {target} exists already: name a new file, or remove this one")
    from metapl.cli import display  # noqa: PLC0415 - imports torch
    from metapl.reporting import suggestions  # noqa: PLC0415 - imports torch
    from metapl.serving import suggest as suggesting  # noqa: PLC0415 - imports torch
    from metapl.training import checkpoint  # noqa: PLC0415 - imports torch

    wanted = suggesting.Wanted(by, count, network, batch)
    found = suggesting.suggest(run, wanted, data or (), device, trust_code)

    def save(path: Path) -> None:
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            suggesting.write(file, found)

    html = suggestions.page(run, found).encode(errors="xmlcharrefreplace")
    checkpoint.write(target, save)
    checkpoint.write(page, lambda temporary: temporary.write_bytes(html))
    display.console.print(f"suggested  {len(found.rows):,} of {found.asked:,} unlabelled examples, by {by}")
    display.console.print(f"doubtful   {len(found.doubtful):,} given labels that {found.network} doubts")
    display.console.print(f"table      {target}: fill in the column label")
    display.console.print(f"page       {page} ({len(html) / 1000:,.0f} kB)")
    display.console.print(f"train      metapl train --from {run} --more-labels {target}")
