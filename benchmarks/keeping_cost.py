"""What it costs to store where a run stands: steps of a preset with a state every so many, and without.

    METAPL_DATA=DIR python benchmarks/keeping_cost.py --batch 14 --labelled-batch 2

Both take turns in one process, a block of steps each, in an order that changes. The figures are those of blocks: time
on the clock, time of the processor with what the writing thread takes, and the medians of both and of the ratios of
neighbouring blocks. The state is as large as that of the preset whatever the batch, so that with a small batch the
ratio is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from metapl import methods
from metapl.evaluation import cost
from metapl.training import changes, keeper, loop, machine, phases, session, state_files
from metapl.training.config import resolve
from metapl.training.experiment import Experiment, prepare
from metapl.training.keeping import Keeping


def stepping(experiment: Experiment, folder: Path, every: int) -> Iterator[None]:
    """The first phase, step by step, with a state every so many steps; none for 0."""
    config = experiment.config
    spec = methods.plan(config)[0]
    runs = session.begin([experiment], [folder], folder)
    keeping = Keeping(checkpoint_every=str(every))
    phase = phases.prepare_phase(experiment, spec, {})
    with keeper.Keeper(runs, methods.lengths(config), keeping, changes.made_with(), time.perf_counter()) as kept:
        kept.see(0, phases.Began(spec.name, {}))
        for event in loop.steps(phase, loop.start(phase), config.report_every):
            kept.see(0, event)
            if isinstance(event, loop.Stepped):
                yield


def seconds(step: Callable[[], None], steps: int) -> tuple[float, float]:
    """Of a block of steps: on the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cifar10-4k")
    parser.add_argument("--batch", type=int, default=896)
    parser.add_argument("--labelled-batch", type=int, default=128)
    parser.add_argument("--every", type=int, default=100, help="steps between two states, and in a block")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    given = {"batch": options.batch, "labelled_batch": options.labelled_batch}
    experiment = prepare(resolve(given, preset=options.preset))
    with tempfile.TemporaryDirectory() as place:
        runs = {every: stepping(experiment, Path(place) / str(every), every) for every in (0, options.every)}
        for run in runs.values():
            next(run)  # the first step has costs of its own
        found: dict[int, list[tuple[float, float]]] = {every: [] for every in runs}
        for block in range(options.blocks):
            for every in sorted(runs, reverse=bool(block % 2)):
                found[every].append(seconds(lambda: next(runs[every]), options.every))  # noqa: B023 - called at once
        size = max(path.stat().st_size for path in state_files.states(Path(place) / str(options.every)))
    print(json.dumps(machine.environment()))
    print(f"{options.preset}, batches of {options.batch} + {options.labelled_batch}, a state of {size / 2**20:.1f} MiB")
    without, stored = found.values()
    for name, which in (("clock", 0), ("processor", 1)):
        one, other = ([times[which] for times in blocks] for blocks in (without, stored))
        step = 1e3 * cost.quartiles(one)[1] / options.every
        low, middle, high = cost.quartiles([b / a for a, b in zip(one, other, strict=True)])
        medians = cost.quartiles(other)[1] / cost.quartiles(one)[1]
        print(
            f"{name:10} {step:7.1f} ms a step; of medians x {medians:.4f}; of neighbours x {middle:.4f} "
            f"[{low:.4f}, {high:.4f}]"
        )


if __name__ == "__main__":
    main()
