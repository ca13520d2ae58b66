"""`metapl data` and its verbs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metapl.cli import data_check
from metapl.cli.data_check import DataDir, What
from metapl.registry.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from metapl.data.examples import Examples
    from metapl.data.sources import Stored
    from metapl.data.sources.base import Archive
    from metapl.data.sources.fetch import Progress

HELP = """List, check and download data sets, and write them as one file."""

BATCH = 4096
"""Examples that are read at a time."""

app = typer.Typer(help=HELP, invoke_without_command=True)

app.command("check", help=data_check.HELP)(data_check.check)


@app.callback()
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_sources()


@app.command("list", help="List the data sources, and where their files are. This is the default.")
def list_sources(data_dir: DataDir = "") -> None:
    """One row a source."""
    from rich.table import Column, Table  # noqa: PLC0415

    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.data.sources import EMBEDDED, STORED  # noqa: PLC0415 - imports torch

    others = (Column(head, overflow="fold") for head in ("where", "files", "metapl data get, from"))
    printed = Table(Column("--data", no_wrap=True), *others)
    for name in EMBEDDED:
        printed.add_row(name, "needs no files", "", "")
    for name, one in STORED.items():
        printed.add_row(name, *_where(name, one, data_dir), _archives(one))
    console.print(printed)


def _where(name: str, one: Stored, data_dir: str) -> tuple[str, str]:
    from metapl.data.sources import find  # noqa: PLC0415 - imports torch

    place = find.find(name, data_dir)
    if place is None:
        return ("not found" if one.folders else "give its path"), ""
    files = find.there(one, place)
    if not files or sum(path.stat().st_size for path in files.values()) > find.CHECKED:
        return str(place), "not checked"
    wrong = [path.name for known, path in files.items() if not find.is_published(known, path)]
    return str(place), f"different: {', '.join(wrong)}" if wrong else f"{len(files)} as published"


def _archives(one: Stored) -> str:
    hosts = {archive.url.rpartition("/")[0] for archive in one.archives}
    return ", ".join(sorted(hosts))


ToOption = typer.Option(
    help="Folder to put it in. \\[default: the first one of METAPL_DATA, else data]", show_default=False
)
UrlOption = typer.Option(help="Folder on another server with the same files.", show_default=False)
AllOption = typer.Option("--all", help="What the data set can do without too, such as svhn's extra images.")


@app.command("get", help="Download a published data set; after an interruption it goes on where it stopped.")
def get(
    name: Annotated[str, typer.Argument(help="A name with an address in `metapl data list`.")],
    to: Annotated[Path | None, ToOption] = None,
    url: Annotated[str, UrlOption] = "",
    everything: Annotated[bool, AllOption] = False,
) -> None:
    """Download, compare, extract."""
    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.data.sources import STORED, find  # noqa: PLC0415 - imports torch
    from metapl.registry.errors import unknown  # noqa: PLC0415 - quick help

    if name not in STORED or not STORED[name].archives:
        raise unknown("published data set", name, [key for key, one in STORED.items() if one.archives])
    one = STORED[name]
    to = to or Path(os.environ.get(find.VARIABLE, "").split(os.pathsep)[0] or "data").expanduser()
    for archive in one.archives:
        if everything or not archive.optional:
            _fetch(archive, to, one.folders[0], url)
    place = find.require(name, str(to))
    for known, path in find.there(one, place).items():
        find.require_published(known, path)
    console.print(f"{name} is in {place}: use it with --data {name} --data-dir {to}")


def _fetch(archive: Archive, to: Path, folder: str, mirror: str) -> None:
    """A file of the data set, or an archive, which brings its own folder and stays, so that it is not fetched again."""
    from metapl.data.sources import fetch  # noqa: PLC0415 - quick help
    from metapl.files.archive import extract  # noqa: PLC0415 - quick help

    file = archive.url.rpartition("/")[2]
    url = archive.url if not mirror else mirror if mirror.endswith(file) else f"{mirror.rstrip('/')}/{file}"
    packed = file.endswith(fetch.ARCHIVES)
    target = to / file if packed else to / folder / file
    with _bar(file) as progress:
        fetch.download(url, target, archive.digest, progress, archive.size)
    if packed:
        extract(target, to)


@contextmanager
def _bar(name: str) -> Iterator[Progress]:
    """A progress bar, as the function that moves it."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415

    from metapl.cli.display import console  # noqa: PLC0415 - imports torch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=console) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


OutOption = typer.Option(help="The file to write; its name ends in .npz.", show_default=False)


@app.command("prepare", help="Write a data set as one .npz file, which --data reads too.")
def prepare(what: What, out: Annotated[Path, OutOption], data_dir: DataDir = "") -> None:
    """Arrays `x`, `y`, `x_test`, `y_test`, and `x_val`, `y_val` where there is a validation set, all as stored.

    −1 is where a label is unknown, and `classes` has the names.
    """
    if out.suffix != ".npz" or out.is_dir():
        raise InputError(f"--out {out} must be a file that ends in .npz: name one")
    import numpy as np  # noqa: PLC0415 - quick help

    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.data.sources import find  # noqa: PLC0415 - imports torch
    from metapl.files import storage  # noqa: PLC0415 - with numpy

    data = find.load(what, data_dir)
    if data.form.kind == "features":
        raise InputError(f"{what} holds features, which are arrays already: give it to --data as it is")
    x, y = _array(data.x), data.y.numpy()
    given = np.zeros(0, np.int64) if data.validation is None else data.validation.numpy()
    arrays: dict[str, Any] = {
        "x": np.delete(x, given, axis=0) if len(given) else x,
        "y": np.delete(y, given),
        **({"x_val": x[given], "y_val": y[given]} if len(given) else {}),
        "x_test": _array(data.x_test),
        "y_test": data.y_test.numpy(),
        "classes": np.array(data.form.classes),
    }
    storage.write(out, lambda temporary: np.savez(temporary, **arrays))
    console.print(f"{out} has {len(data.x):,} examples to train on and {len(data.x_test):,} to test")


def _array(x: Examples) -> np.ndarray:
    """All examples in memory."""
    import torch  # noqa: PLC0415 - slow to import

    if isinstance(x, torch.Tensor):
        return x.numpy()
    made = torch.empty(x.shape, dtype=x.dtype)
    for index in torch.arange(len(x)).split(BATCH):
        made[index] = x[index]
    return made.numpy()
