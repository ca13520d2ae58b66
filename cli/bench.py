"""`metapl bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metapl.registry.errors import InputError

if TYPE_CHECKING:
    from metapl.studies.bench import Scene, StepCost

HELP = """Measure whole training steps: time, operations and memory of every estimator, and of steps without metapl.

Without arguments: the network of `metapl train`, 16 labelled and 112 unlabelled examples; half a minute."""

SHAPES = {"mlp": (1, 8, 8), "linear": (1, 8, 8), "cosine": (1, 8, 8)}
"""Of one example by the name of the network, where it is no colour image of 32 × 32 pixels."""
IMAGE = (3, 32, 32)

ModelOption = typer.Option(help="Network of teacher and student, NAME:key=value,…; may be given again and again.")
GradOption = typer.Option(
    help="Estimator, NAME:key=value,…; may be given again and again. \\[default: all]", show_default=False
)
ShapeOption = typer.Option(
    help="Of one example, such as 3,224,224. \\[default: 1,8,8 for an mlp, else 3,32,32]", show_default=False
)
ProcessorOption = typer.Option(
    "--processor-time", help="Count the processor's seconds, for a machine that other programs use too."
)
NOTE = """FLOPs, time   of one step, and how many times those of the first; the quartiles over rounds in brackets
memory        at most held beyond what was there before
examples/s    labelled and unlabelled ones"""


def bench(  # noqa: PLR0913 - one parameter a flag
    *,
    model: Annotated[list[str] | None, ModelOption] = None,
    grad: Annotated[list[str] | None, GradOption] = None,
    batch: Annotated[int, typer.Option(help="Labelled examples.")] = 16,
    ratio: Annotated[int, typer.Option(help="Unlabelled examples for each labelled one.")] = 7,
    shape: Annotated[str, ShapeOption] = "",
    rounds: Annotated[int, typer.Option(help="Timed steps of each kind, taking turns.")] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    processor: Annotated[bool, ProcessorOption] = False,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file too.", show_default=False)] = None,
) -> None:
    """See HELP."""
    for name, value in {"--batch": batch, "--ratio": ratio, "--rounds": rounds}.items():
        if value < 1:
            raise InputError(f"{name} {value} must be at least 1")
    sizes = _shape(shape)
    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.files import storage  # noqa: PLC0415 - quick help
    from metapl.studies import bench as measuring  # noqa: PLC0415 - imports torch
    from metapl.training import machine  # noqa: PLC0415 - imports torch
    from metapl.training.experiment import pick_device  # noqa: PLC0415 - imports torch

    estimators = measuring.choose(grad or [])
    record: list[dict[str, Any]] = []
    for name in model or ["mlp"]:
        default = SHAPES.get(name.partition(":")[0], IMAGE)
        scene = measuring.Scene(name, sizes or default, batch, ratio, pick_device(device))
        with console.status("") as status:
            status.update(f"{name}: first steps")
            calls, left_out = measuring.steps(scene, estimators)
            rows = measuring.measure(scene, calls, rounds, processor=processor, tell=status.update)
        _show(scene, rows, left_out)
        place = {**scene._asdict(), "device": str(scene.device)}
        record.append({**place, "rows": [row._asdict() for row in rows], "left_out": left_out})
    console.print(NOTE)
    if json is not None:
        clock = {"rounds": rounds, "processor_time": processor}
        storage.write_json(json, {"environment": machine.environment(), **clock, "scenes": record})


def _shape(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(size) for size in text.split(",")) if text else ()
    except ValueError:
        found = (0,)
    if any(size < 1 for size in found):
        raise InputError(f"--shape {text} must be whole numbers above 0, as in --shape 3,32,32")
    return found


def _show(scene: Scene, rows: list[StepCost], left_out: dict[str, str]) -> None:
    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.cli.tables import printed  # noqa: PLC0415 - quick help
    from metapl.files.table import Column, Table  # noqa: PLC0415 - quick help

    titles = ("GFLOPs", "FLOPs", "ms", "time", "memory", "examples/s")
    columns = [Column("step"), *(Column(title, look="figure") for title in titles)]
    sizes = "×".join(map(str, scene.shape))
    console.print(
        f"{scene.model}, {scene.batch} labelled and {scene.batch * scene.ratio} unlabelled examples of {sizes}"
    )
    console.print(printed(Table(columns, [_cells(row) for row in rows]), whole_names=True))
    for name, reason in left_out.items():
        console.print(f"left out   {name}: {reason}")


def _cells(row: StepCost) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.flops / 1e9:,.3f}",
        f"{row.flops_ratio:.3f}",
        f"{1e3 * row.seconds:,.1f}",
        f"{row.time_ratio:.2f} [{row.time_low:.2f}–{row.time_high:.2f}]",
        f"{row.peak_memory_bytes / 2**20:,.1f} MiB",
        f"{row.examples_per_second:,.0f}",
    )
