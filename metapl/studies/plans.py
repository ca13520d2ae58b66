"""What a run would take on machines that are not here: plans of the paper's runs, and of one's own.

A plan counts the passes of the network on shapes (`metapl.studies.passes`) and puts them together by
`metapl.studies.cost_model`. Nothing is computed, so a plan of a large run takes seconds and next to no memory.
"""

from __future__ import annotations

from typing import NamedTuple

from metapl.registry.errors import InputError, unknown
from metapl.studies import cost_model, passes
from metapl.studies.cost_model import Device, StepPlan
from metapl.studies.meta_network import Network
from metapl.studies.passes import Size
from metapl.training.config import preset_values

SHARE = 0.4
"""Of the published peak that products and convolutions are assumed to reach."""

CALL = 10e-6
"""Seconds that Python and torch are assumed to take for a call. On the machine of docs/scaling.md it was 24 µs."""

DEVICES = {
    "a100": Device(SHARE * 312e12, 80e9, 2.039e12, CALL, 25e9),
    "h100": Device(SHARE * 989e12, 80e9, 3.35e12, CALL, 50e9),
}
"""NVIDIA's data sheets of the SXM forms with 80 GB: dense bfloat16 operations, memory, its bandwidth; and a network
card of 200 or 400 Gbit/s for each of them, as in machines of eight."""

GRADS = ("none", "first-order", "exact", "exact:route=difference")
"""What is planned where there is one step of the student for each of the teacher's."""

_DAY = 86_400


class Run(NamedTuple):
    """What is to be trained, and on what."""

    network: Network
    labelled: int
    """Examples of a step, of all processes together."""
    unlabelled: int
    steps: int
    processes: int = 1
    device: str = "h100"
    unroll: int = 1


class Paper(NamedTuple):
    """A run of the paper: the preset that has its numbers, the shape of its examples, and machines of today for it."""

    preset: str
    shape: tuple[int, ...]
    classes: int
    processes: int


PAPER = {
    "cifar10": Paper("cifar10-4k", (3, 32, 32), 10, 1),
    "imagenet": Paper("imagenet-10pct", (3, 224, 224), 1000, 256),
    "jft": Paper("imagenet-jft", (3, 512, 512), 1000, 2048),
}
"""The paper's runs by name."""

OWN = "own"
"""The name of a plan that is made of flags alone."""


class Row(NamedTuple):
    """What a run costs with one estimator."""

    grad: str
    flops: int
    """Of a step, in each process."""
    memory: int
    """Bytes that a process holds at most."""
    sent: int
    """Bytes that a process sends in a step."""
    seconds: float
    """Of a step."""
    bound: str
    """What they are taken by: operations, bytes or calls."""
    days: float
    """Of the run."""
    beyond: float
    """Time over that of the paper's estimator; 1 is the same. Of several steps over none."""
    fits: bool
    """Whether the memory of the device is enough."""


def paper(name: str) -> Run:
    """A run of the paper, with its preset's network, batches and steps.

    Dropout is left out: its masks are a function of a key, and a pass on shapes has no numbers to draw.

    Raises:
        InputError: an unknown name.
    """
    if name not in PAPER:
        raise unknown("plan", name, [*PAPER, OWN])
    known = PAPER[name]
    values = preset_values(known.preset)
    kind, _, options = str(values["model"]).partition(":")
    kept = [one for one in options.split(",") if one and not one.startswith("drop")]
    quiet = ["dropout=0", "drop_path=0"] if kind == "efficientnet" else []
    model = ":".join(filter(None, (kind, ",".join([*kept, *quiet]))))
    network = Network(model, known.shape, known.classes, "bf16")
    return Run(network, values["labelled_batch"], values["batch"], values["steps"], known.processes)


def device(name: str, precision: str) -> Device:
    """A device by name. In float32 it is taken to multiply half as fast, as by TF32.

    Raises:
        InputError: an unknown name.
    """
    if name not in DEVICES:
        raise unknown("device of a plan", name, DEVICES)
    found = DEVICES[name]
    return found if precision == "bf16" else found._replace(flops=found.flops / 2)


def part(run: Run) -> Size:
    """The examples of a step in one process.

    Raises:
        InputError: they cannot be dealt out evenly.
    """
    for name, count, among in (
        ("labelled", run.labelled, run.processes),
        ("unlabelled", run.unlabelled, run.processes * run.unroll),
    ):
        if count % among:
            raise InputError(
                f"{count} {name} examples cannot be dealt out evenly to {among}: change --batch or --ratio"
            )
    return Size(run.labelled // run.processes, run.unlabelled // run.processes, run.unroll, run.processes == 1)


def plan(run: Run, device: Device) -> list[Row]:
    """What the run costs with each estimator that takes its number of steps.

    Raises:
        InputError: an unknown network, option or precision; a shape or a number of processes that does not fit.
    """
    size, whole = part(run), Size(run.labelled, run.unlabelled, run.unroll)
    grads = GRADS if run.unroll == 1 else ("none", "exact")
    counted = passes.measure(run.network, size, grads)
    steps = {
        grad: cost_model.step(grad, found, whole, run.network.classes, run.processes) for grad, found in counted.items()
    }
    base = cost_model.seconds(steps["first-order" if run.unroll == 1 else "none"], device)
    return [_row(grad, step, run, device, base) for grad, step in steps.items()]


def _row(grad: str, step: StepPlan, run: Run, device: Device, base: float) -> Row:
    seconds = cost_model.seconds(step, device)
    days = seconds * run.steps / _DAY
    parts, fits = cost_model.parts(step, device), step.memory <= device.memory
    bound = max(parts, key=lambda name: parts[name])
    return Row(grad, step.flops, step.memory, step.sent, seconds, bound, days, seconds / base, fits)
