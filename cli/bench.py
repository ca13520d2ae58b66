"""`metapl bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metapl.registry.errors import InputError

if TYPE_CHECKING:
    from metapl.studies.bench import Scene, StepCost

HELP = """Measure whole training steps: time, operations and memory of every estimator, and of steps without metapl.

Without arguments: the network of `metapl train`, 16 labelled and 112 unlabelled examples; half a minute.
With --plan nothing is measured: what a run would take on other machines is worked out from the network's passes."""

SHAPES = {"mlp": (1, 8, 8), "linear": (1, 8, 8), "cosine": (1, 8, 8)}
"""Of one example by the name of the network, where it is no colour image of 32 × 32 pixels."""
IMAGE = (3, 32, 32)

ModelOption = typer.Option(help="Network of teacher and student, NAME:key=value,…; may be given again and again.")
GradOption = typer.Option(
    help="Estimator, NAME:key=value,…; may be given again and again. \\[default: all]", show_default=False
)
BatchOption = typer.Option(help="Labelled examples. \\[default: 16]", show_default=False)
RatioOption = typer.Option(help="Unlabelled examples for each labelled one. \\[default: 7]", show_default=False)
ShapeOption = typer.Option(
    help="Of one example, such as 3,224,224. \\[default: 1,8,8 for an mlp, else 3,32,32]", show_default=False
)
RoundsOption = typer.Option(help="Timed steps of each kind, taking turns. \\[default: 20]", show_default=False)
ProcessorOption = typer.Option(
    "--processor-time", help="Count the processor's seconds, for a machine that other programs use too."
)
PlanOption = typer.Option(
    "--plan",
    help="Work out a run instead: cifar10, imagenet or jft of the paper, or own, by --model and --shape.",
    show_default=False,
)
PlotOption = typer.Option(help="Draw time and memory to this PNG.", show_default=False)


def _planned(text: str) -> Any:
    return typer.Option(help=f"With --plan: {text}", show_default=False)


NOTE = """FLOPs, time   of one step, and how many times those of the first; the quartiles over rounds in brackets
memory        at most held beyond what was there before
examples/s    labelled and unlabelled ones"""


def bench(  # noqa: PLR0913 - one parameter a flag
    *,
    model: Annotated[list[str] | None, ModelOption] = None,
    grad: Annotated[list[str] | None, GradOption] = None,
    batch: Annotated[int | None, BatchOption] = None,
    ratio: Annotated[int | None, RatioOption] = None,
    shape: Annotated[str, ShapeOption] = "",
    rounds: Annotated[int | None, RoundsOption] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; of a plan a100 or h100.")] = "auto",
    processor: Annotated[bool, ProcessorOption] = False,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file too.", show_default=False)] = None,
    plot: Annotated[Path | None, PlotOption] = None,
    plan: Annotated[str, PlanOption] = "",
    unroll: Annotated[int | None, _planned("the student's steps for each of the teacher's.")] = None,
    processes: Annotated[int | None, _planned("processes, each with a device of its own.")] = None,
    precision: Annotated[str | None, _planned("float32 or bf16.")] = None,
    microbatch: Annotated[int | None, _planned("most examples in memory at a time.")] = None,
    steps: Annotated[int | None, _planned("steps of the run.")] = None,
    device_flops: Annotated[float | None, _planned("operations a second that are reached.")] = None,
    device_memory: Annotated[float | None, _planned("bytes of a device.")] = None,
    device_call: Annotated[float | None, _planned("seconds of a call of torch.")] = None,
    device_bandwidth: Annotated[float | None, _planned("bytes a second of its memory.")] = None,
    link: Annotated[float | None, _planned("bytes a second to other processes.")] = None,
) -> None:
    """See HELP."""
    options: dict[str, Any] = {
        "unroll": unroll,
        "processes": processes,
        "precision": precision,
        "microbatch": microbatch,
    }
    options |= {"steps": steps, "device_flops": device_flops, "device_memory": device_memory}
    options |= {"device_bandwidth": device_bandwidth, "device_call": device_call, "link": link}
    given = {name: value for name, value in options.items() if value is not None}
    sizes = _shape(shape)
    _require({"batch": batch, "ratio": ratio, "rounds": rounds, **given})
    if plan:
        batches = {"batch": batch, "ratio": ratio, "shape": sizes, "device": "" if device == "auto" else device}
        measured = {"grad": grad, "plot": plot, "rounds": rounds, "processor-time": processor}
        _plan(plan, {**{name: value for name, value in batches.items() if value}, **given}, model, measured, json)
        return
    if given:
        raise InputError(f"--{next(iter(given)).replace('_', '-')} is for a plan: give --plan own with it")
    batch, ratio, rounds = batch or 16, ratio or 7, rounds or 20
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
    if plot is not None:
        from metapl.reporting import step_plot  # noqa: PLC0415 - imports torch

        step_plot.step_costs(record, plot)


def _require(numbers: dict[str, Any]) -> None:
    for name, value in numbers.items():
        if isinstance(value, int | float) and (value < 1 if isinstance(value, int) else not value > 0):
            least = "at least 1" if isinstance(value, int) else "above 0"
            raise InputError(f"--{name.replace('_', '-')} {value} must be {least}")


def _plan(
    name: str,
    given: dict[str, Any],
    model: list[str] | None,
    measured: dict[str, Any],
    json: Path | None,
) -> None:
    """A plan is of one network and of the estimators that the model knows, and nothing in it is `measured`."""
    if flag := next((name for name, value in measured.items() if value), ""):
        raise InputError(f"--{flag} is not for a plan: leave it out, or --plan")
    if model and len(model) > 1:
        raise InputError(f"a plan is of one network, not {len(model)}: give --model once")
    from metapl.cli import plan  # noqa: PLC0415 - imports torch

    plan.show(name, {**given, **({"model": model[0]} if model else {})}, json)


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
