"""`metapl grads`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

HELP = """List the estimators of the feedback: how to type them, what each claims, what it costs."""


def _row(name: str, constructor: Callable[..., Any]) -> dict[str, str]:
    from metapl.registry import notation  # noqa: PLC0415 - quick help

    estimator = constructor()
    return {
        "name": name,
        "signature": notation.signature(name, constructor),
        "claim": estimator.claim,
        "labels": ", ".join(estimator.targets),
        "cost": estimator.cost,
        "about": (constructor.__doc__ or "").strip().splitlines()[0],
    }


def grads(
    json: Annotated[Path | None, typer.Option(help="Write the list to this file too.", show_default=False)] = None,
) -> None:
    """See HELP."""
    from rich.table import Column, Table  # noqa: PLC0415

    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.estimators import AVAILABLE  # noqa: PLC0415 - imports torch
    from metapl.files import storage  # noqa: PLC0415 - quick help
    from metapl.registry.errors import InputError  # noqa: PLC0415 - quick help

    rows, broken = [], []
    for name in AVAILABLE:
        try:
            rows.append(_row(name, AVAILABLE[name]))
        except InputError as error:  # one broken package must not hide the others
            broken.append(str(error))
    printed = Table(Column("--grad", no_wrap=True), "claim", "labels", "cost beyond the student's step")
    for row in rows:
        printed.add_row(*(row[key] for key in ("signature", "claim", "labels", "cost")))
    console.print(printed)
    console.print("Options are shown with their defaults, and a claim is that of the defaults.")
    console.print("F: a forward pass of the student. B: a backward pass. K: its steps, --unroll.")
    for line in broken:
        console.print(f"not listed: {line}")
    if json is not None:
        storage.write_json(json, rows)
