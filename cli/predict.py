"""`metapl predict`."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metapl.cli.tell import Shown, TrustCode, tell

if TYPE_CHECKING:
    from metapl.data.examples import Problems

HELP = """Predict the classes of fresh examples with a network of a finished run, as CSV.

A row for each example: its name, or its columns in a table; its class, and how probable that and each class is."""

WORST = 5
"""Pairs of classes that are named as mistakes."""

FEW = 3
"""Problems that are told of many."""

ERRORS = "surrogateescape"
"""The name of a file need not be text; so it comes out as it came in."""


def tell_of(problems: Problems) -> None:
    """Say how many examples had problems, and which the first ones were."""
    for word, found in (("unread", problems.unread), ("doubtful", problems.doubtful)):
        if found:
            first = "; ".join([found[place] for place in sorted(found)[:FEW]])
            tell(f"{word:<10} {len(found):,}: {first}{'; …' * (len(found) > FEW)}")


def _is_own(data: str, files: Sequence[Path]) -> bool:
    """Whether examples are of the data that a run was trained on."""
    place = Path(data.partition(":")[0]).expanduser().resolve()
    return any(place in (file.resolve(), *file.resolve().parents) for file in files)


def predict(  # noqa: PLR0913 - one flag a parameter
    run: Annotated[Path, typer.Argument(help="A folder that `metapl train` wrote.")],
    files: Annotated[list[Path], typer.Argument(help="Examples in files and folders like those of the training.")],
    *,
    out: Annotated[str, typer.Option(help="The CSV file to write; - is standard output.")] = "-",
    network: Annotated[str, typer.Option(help="Which network of the run; the best by default.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    batch: Annotated[int, typer.Option(help="Examples predicted at a time.", min=1)] = 256,
    confident: Annotated[float, typer.Option(help="Write only rows of this confidence or more.", min=0, max=1)] = 0.0,
    trust_code: TrustCode = False,
) -> None:
    """See HELP."""
    from metapl.serving import predict as prediction  # noqa: PLC0415 - imports torch
    from metapl.training import checkpoint, run_folder  # noqa: PLC0415 - imports torch

    serving = run_folder.serve(run, network, device, trust_code)
    if out == "-":
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors=ERRORS, newline="")
        place = Shown(sys.stdout) if sys.stdout.isatty() else sys.stdout
        count = prediction.write(place, serving, files, batch, confident)
    else:
        counts = []

        def save(path: Path) -> None:
            with path.open("w", encoding="utf-8", errors=ERRORS, newline="") as file:
                counts.append(prediction.write(file, serving, files, batch, confident))

        checkpoint.write(Path(out), save)
        (count,) = counts
    tell(f"predicted  {count.rows:,} examples with {serving.name} of {run}")
    tell_of(count.problems)
    if count.labelled:
        share = f"{100 * count.right / count.labelled:.2f} %"
        learnt = ", from some of which the run has learnt" if _is_own(serving.config.data, files) else ""
        tell(f"accuracy   {share} of the {count.labelled:,} that came with a label{learnt}")
        worst = [f"{number:,} {one} as {other}" for (one, other), number in count.mistakes.most_common(WORST)]
        if worst:
            tell(f"mistakes   {', '.join(worst)}{', …' * (len(count.mistakes) > WORST)}")
