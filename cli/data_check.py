"""`metapl data check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metapl.registry.errors import InputError

if TYPE_CHECKING:
    from metapl.data.sources import Dataset

HELP = """Say what a data set is taken for: columns, classes, what is left out or doubtful; as a page too.

Files of published data sets are compared with their checksums."""

FEW = 20
"""Classes up to which each is listed with its number of examples."""

What = Annotated[str, typer.Argument(help="As for `metapl train --data`: NAME:key=value,… or a path.")]
DataDir = Annotated[str, typer.Option(help="Folder with the files of a named data set.", show_default=False)]

CheckOption = typer.Option("--out", help="Write a page of it too, a file that ends in .html.", show_default=False)


def check(what: What, data_dir: DataDir = "", out: Annotated[Path | None, CheckOption] = None) -> None:
    """Checksums first, so that a damaged file is named before it is read."""
    if out and (out.is_dir() or out.suffix.lower() not in (".html", ".htm")):
        raise InputError(f"--out {out} must be a file that ends in .html: name one")
    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.data.sources import EMBEDDED, STORED, find  # noqa: PLC0415 - imports torch

    origin = ""
    if what.partition(":")[0] not in EMBEDDED:
        name, place = find.locate(what, data_dir)
        files = find.there(STORED[name], place)
        origin = f"{place}, read as {name}"
        console.print(f"place      {origin}")
        for known, path in files.items():
            if what.partition(":")[0] in STORED:
                find.require_published(known, path)
            same = find.is_published(known, path)
            console.print(f"file       {path.name} is {'' if same else 'not '}as published ({known.digest})")
        if STORED[name].files and not files:
            console.print("files      not published ones, or not with known checksums: not checked")
    data = find.load(what, data_dir)
    _describe(what, data)
    if out:
        _page(out, what, data, origin)


def _page(out: Path, what: str, data: Dataset, origin: str) -> None:
    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.files import storage  # noqa: PLC0415 - quick help
    from metapl.reporting import dataset  # noqa: PLC0415 - imports torch

    html = dataset.page(what, data, origin).encode(errors="xmlcharrefreplace")
    storage.write(out, lambda temporary: temporary.write_bytes(html))
    console.print(f"page       {out} ({len(html) / 1000:,.0f} kB)")


def _describe(what: str, data: Dataset) -> None:
    import torch  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415

    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.data.augment import presets  # noqa: PLC0415 - imports torch
    from metapl.data.formats import features  # noqa: PLC0415 - imports torch
    from metapl.data.sources import EMBEDDED  # noqa: PLC0415 - imports torch

    shape = "×".join(map(str, data.form.shape))
    kind = str(data.x.dtype).removeprefix("torch.")
    console.print(f"examples   {len(data.x):,} to train on, {len(data.x_test):,} to test, each {shape} {kind}")
    if data.form.kind == "features":
        console.print(f"vectors    {features.description(data.form, data.x.shape)}")
    unknown = int((data.y < 0).sum())
    console.print(f"labels     of {data.classes} classes" + (f"; {unknown:,} have none" if unknown else ""))
    if data.validation is not None:
        console.print(f"validation {len(data.validation):,} of those to train on, which the data has for it")
    for note in data.notes:
        console.print(f"{note.about:<10} {note.text}")
    if what.partition(":")[0] not in EMBEDDED:
        console.print(f"views      {presets.description(data.form)}")
    counts = [torch.bincount(y[y >= 0], minlength=data.classes).tolist() for y in (data.y, data.y_test)]
    if data.classes > FEW:
        for part, found in zip(("training", "test"), counts, strict=True):
            console.print(f"balance    {min(found):,} to {max(found):,} {part} examples a class")
        return
    printed = Table("class", "training", "test")
    for row in zip(data.form.classes, *counts, strict=True):
        printed.add_row(*map(str, row))
    console.print(printed)
