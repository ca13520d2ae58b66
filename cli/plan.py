"""What `metapl bench --plan` prints: a run on machines that are not here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metapl.registry.errors import InputError

if TYPE_CHECKING:
    from metapl.studies.cost_model import Device
    from metapl.studies.plans import Row, Run

NOTE = """operations  of a step, in each process
memory      at most held by a process, with the state of both networks and of the average
sent        to other processes in a step, by each
step        by operations at {flops:.0f} TFLOP/s, bytes at {bandwidth:.2f} TB/s or calls of {call:.0f} µs, whichever
            takes longest, and then the sums at {link:.0f} GB/s; nothing was computed or timed
time        to that of first-order, or of none where there are several steps of the student
Reading and augmenting images is not in it."""


def show(name: str, given: dict[str, Any], file: Path | None) -> None:
    """Print a plan and write it to a file.

    Args:
        name: of the plan.
        given: flags by name without dashes, those that were given; they go before what the plan says.
        file: JSON, if any.
    """
    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.files import storage  # noqa: PLC0415 - quick help
    from metapl.studies import plans  # noqa: PLC0415 - imports torch

    run = _run(name, given)
    device = _device(run, given)
    with console.status("counting on shapes"):
        rows = plans.plan(run, device)
    _print(run, device, rows)
    if file is not None:
        record = {**run._asdict(), "network": run.network._asdict(), "device": {"name": run.device, **device._asdict()}}
        storage.write_json(file, {"plan": name, **record, "rows": [row._asdict() for row in rows]})


def _run(name: str, given: dict[str, Any]) -> Run:
    from metapl.studies import plans  # noqa: PLC0415 - imports torch

    if name == plans.OWN:
        if "model" not in given or "shape" not in given:
            raise InputError(f"--plan {plans.OWN} is made of flags: give --model and --shape at least")
        run = plans.Run(plans.Network("", ()), 16, 112, 100_000)
    else:
        run = plans.paper(name)
    own = {key: given[key] for key in ("model", "shape", "precision", "microbatch") if key in given}
    labelled = given.get("batch", run.labelled)
    ratio = given.get("ratio", run.unlabelled // run.labelled)
    rest = {key: given[key] for key in ("steps", "processes", "unroll", "device") if key in given}
    return run._replace(network=run.network._replace(**own), labelled=labelled, unlabelled=labelled * ratio, **rest)


def _device(run: Run, given: dict[str, Any]) -> Device:
    from metapl.studies import plans  # noqa: PLC0415 - imports torch

    found = plans.device(run.device, run.network.precision)
    own = {field: f"device_{field}" for field in found._fields} | {"link": "link"}
    return found._replace(**{field: given[flag] for field, flag in own.items() if flag in given})


def _print(run: Run, device: Device, rows: list[Row]) -> None:
    from metapl.cli.display import console  # noqa: PLC0415 - imports torch
    from metapl.cli.tables import printed  # noqa: PLC0415 - quick help
    from metapl.files.table import Column, Table  # noqa: PLC0415 - quick help

    network, sizes = run.network, "×".join(map(str, run.network.shape))
    console.print(f"{network.model} in {network.precision}, examples of {sizes}, {network.classes} classes")
    console.print(
        f"{run.labelled:,} labelled and {run.unlabelled:,} unlabelled examples a step, {run.steps:,} steps; "
        f"{run.processes:,} × {run.device}"
    )
    titles = ("operations", "memory", "sent", "step", "by", "run", "time")
    table = Table([Column("step"), *(Column(title, look="figure") for title in titles)], [_cells(row) for row in rows])
    console.print(printed(table, whole_names=True))
    if not all(row.fits for row in rows):
        least = _scaled(device.memory, "B")
        console.print(f"! does not fit into {least}: more --processes, or --microbatch for one more forward pass")
    rates = {"flops": device.flops / 1e12, "bandwidth": device.bandwidth / 1e12, "link": device.link / 1e9}
    console.print(NOTE.format(**rates, call=1e6 * device.call))


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.grad,
        _scaled(row.flops, "FLOP"),
        _scaled(row.memory, "B") + ("" if row.fits else " !"),
        _scaled(row.sent, "B") if row.sent else "–",
        f"{row.seconds:.3g} s" if row.seconds >= 1.0 else f"{1e3 * row.seconds:.3g} ms",
        row.bound,
        f"{row.days:,.2f} days",
        f"{row.beyond:.2f}",
    )


def _scaled(value: float, unit: str) -> str:
    """Three digits and a prefix."""
    prefixes = " kMGTPE"
    step = max(0, min(len(prefixes) - 1, int(math.log10(max(value, 1.0)) // 3)))
    return f"{value / 10 ** (3 * step):.3g} {prefixes[step].strip()}{unit}"
