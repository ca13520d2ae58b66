"""`metapl embed`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metapl.registry.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from metapl.data.sources import Dataset
    from metapl.embedding import Encoder
    from metapl.embedding.run import Tell, Wanted

HELP = """Write the features that a pretrained network makes of a data set, as one .npz file, which --data reads.

What has been embedded once is in a cache: a second call answers from it, and one that was stopped goes on."""

What = Annotated[str, typer.Argument(help="As for `metapl train --data`; with --text a CSV file.")]
ModelOption = typer.Option(
    help="efficientnet-lite0, minilm, timm:NAME,key=value,… or module:PACKAGE.MODULE:CONSTRUCTOR,…", show_default=False
)
WeightsOption = typer.Option(
    help="Its weights: a .safetensors file, or one of torch.save with tensors alone. \\[default: those of its package]",
    show_default=False,
)
ViewsOption = typer.Option(
    help="Weak and strong views of each training example, so many of either; 0: none are stored.", min=0
)
FreshOption = typer.Option(
    help="Examples like those of the data set, to be embedded in their place for `metapl predict`.", show_default=False
)
CacheOption = typer.Option(
    help="Folder of what was embedded. \\[default: ~/.cache/metapl/features]", show_default=False
)


def embed(  # noqa: PLR0913 - one flag a parameter
    what: What,
    *,
    model: Annotated[str, ModelOption],
    out: Annotated[Path, typer.Option(help="The file to write; its name ends in .npz.", show_default=False)],
    weights: Annotated[Path | None, WeightsOption] = None,
    views: Annotated[int, ViewsOption] = 0,
    augment: Annotated[str, typer.Option(help="The views, as for `metapl train`.")] = "auto",
    size: Annotated[int, typer.Option(help="Pixels of a side of what the network sees; 0: its own.", min=0)] = 0,
    text: Annotated[str, typer.Option(help="The column of a table that holds texts.", show_default=False)] = "",
    data_dir: Annotated[str, typer.Option(help="Folder with the files of a named data set.", show_default=False)] = "",
    unlabelled: Annotated[str, typer.Option(help="More unlabelled examples.", show_default=False)] = "",
    fresh: Annotated[Path | None, FreshOption] = None,
    batch: Annotated[int, typer.Option(help="Examples at a time.", min=1)] = 16,
    cache: Annotated[Path | None, CacheOption] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
) -> None:
    """See HELP."""
    if out.suffix != ".npz" or out.is_dir():
        raise InputError(f"--out {out} must be a file that ends in .npz: name one")
    if fresh and not fresh.exists():
        raise InputError(f"--fresh {fresh} does not exist: name a file or a folder")
    if text and (views or unlabelled):
        raise InputError("--text has no views and no --unlabelled: rows without a label are the unlabelled ones")
    from metapl.embedding import Given, build  # noqa: PLC0415 - imports torch
    from metapl.embedding import cache as known  # noqa: PLC0415 - imports torch
    from metapl.embedding.run import Wanted, save  # noqa: PLC0415 - imports torch
    from metapl.training.experiment import pick_device  # noqa: PLC0415 - imports torch

    given = Given(None, weights, size, pick_device(device))
    wanted = Wanted(views, batch, cache or known.default(), f"{augment} {what}")
    if text:
        arrays = _texts(what, text, fresh, build(model, given), wanted)
    else:
        data = _data(what, data_dir, augment, unlabelled)
        arrays = _examples(data, fresh, build(model, given._replace(form=data.form)), wanted)
    save(out, arrays)
    _told(out, arrays)


def _data(what: str, data_dir: str, augment: str, unlabelled: str) -> Dataset:
    """The data set, with the views that were asked for."""
    from metapl.data import inputs  # noqa: PLC0415 - imports torch
    from metapl.data.augment.presets import VIEWS  # noqa: PLC0415 - imports torch
    from metapl.data.sources import find  # noqa: PLC0415 - imports torch
    from metapl.registry import notation  # noqa: PLC0415 - quick help

    data = find.load(what, data_dir)
    if augment != "auto":
        data = data._replace(augment=notation.build(augment, VIEWS, "augment", data.form))
    return inputs.with_unlabelled(data, unlabelled) if unlabelled else data


def _examples(data: Dataset, fresh: Path | None, encoder: Encoder, wanted: Wanted) -> dict[str, np.ndarray]:
    from metapl.data import inputs  # noqa: PLC0415 - imports torch
    from metapl.embedding import run  # noqa: PLC0415 - imports torch

    if fresh:
        found = inputs.read(data.form, [fresh]).x
        with _bar(encoder.name, len(found)) as tell:
            return run.fresh(encoder, found, wanted, tell)
    with _bar(encoder.name, len(data.x) * (1 + 2 * wanted.views) + len(data.x_test)) as tell:
        return run.dataset(encoder, data, wanted, tell)


def _texts(what: str, column: str, fresh: Path | None, encoder: Encoder, wanted: Wanted) -> dict[str, np.ndarray]:
    from metapl.data.sources import find, texts  # noqa: PLC0415 - imports torch
    from metapl.embedding import run  # noqa: PLC0415 - imports torch
    from metapl.registry import notation  # noqa: PLC0415 - quick help

    if fresh:
        found = texts.fresh(fresh, column)
        with _bar(encoder.name, len(found)) as tell:
            return run.fresh(encoder, found, wanted, tell)
    path, options = find.split(what)
    data = notation.build(f"texts:{options}", {"texts": texts.texts}, "data", path, column)
    with _bar(encoder.name, len(data.x) + len(data.x_test)) as tell:
        return run.texts(encoder, data, wanted, tell)


@contextmanager
def _bar(name: str, total: int) -> Iterator[Tell]:
    """A progress bar as the function that moves it; at the end a line says how fast it went."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    from metapl.cli.display import console, duration  # noqa: PLC0415 - imports torch

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    started, cached = time.perf_counter(), 0
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("embed", total=total)

        def tell(count: int, known: bool) -> None:
            nonlocal cached
            cached += count * known
            bar.update(task, advance=count)

        yield tell
    seconds = time.perf_counter() - started
    console.print(f"model      {name}")
    made = f"{total - cached:,} made in {duration(seconds)}, {(total - cached) / seconds:,.0f} a second"
    console.print(f"vectors    {total:,}: {cached:,} from the cache, {made}")


def _told(out: Path, arrays: dict[str, np.ndarray]) -> None:
    from metapl.cli.display import console  # noqa: PLC0415 - imports torch

    if "y" not in arrays:
        console.print(f"{out} has {len(arrays['x']):,} examples: metapl predict RUN {out}")
        return
    x, y = arrays["x"], arrays["y"]
    test = f" and {len(arrays['x_test']):,} to test" if "x_test" in arrays else ""
    views = f", {len(arrays['x_weak'])} weak and as many strong views of each" if "x_weak" in arrays else ""
    unknown = f"; {int((y < 0).sum()):,} have no label" if (y < 0).any() else ""
    console.print(f"{out} has {len(x):,} examples to train on{test}, {x.shape[1]:,} features each{views}{unknown}")
    console.print(f"train      metapl train --data {out} --model cosine")
