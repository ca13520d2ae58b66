"""Data parallel training: whether processes train what one trains, and how fast.

    python benchmarks/distributed.py equal                   # largest differences after 20 steps, in float64
    python benchmarks/distributed.py rate                    # two processes of one thread, one process of two threads
    python benchmarks/distributed.py rate --threads 1        # the same, one process of one thread

`equal` trains on digits with 1, 2 and 4 processes over gloo, and compares every tensor of the state: parameters,
running statistics, optimiser states, averages, and what alignment and estimator remember. `rate` takes turns: in each
round the two processes take some steps while the one waits, and then the other way round; the figures are medians of
the ratios of neighbouring rounds, of the clock and of the processor. It also counts what the two processes sum in a
step.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from step_cost import digit_mlp, wide_resnet
from torch import nn

from metapl import estimators, methods, optim
from metapl.core import rng, targets, torch_private, tree
from metapl.core.collectives import ALONE, Processes
from metapl.core.types import Model
from metapl.data.augment.base import Augment, identity
from metapl.data.loader import Batch
from metapl.methods.base import Recipe, Trainable
from metapl.methods.mpl import meta_pseudo_labels
from metapl.nn import functional
from metapl.nn.microbatch import in_parts
from metapl.nn.shared_out import shared_out
from metapl.training import experiment, loop, phases
from metapl.training.config import TrainConfig
from metapl.training.experiment import Experiment

FORK = multiprocessing.get_context("fork")
NORMS = {
    "GroupNorm": {"model": "convnet:width=4,depth=1,norm=group"},
    "BatchNorm, synchronised": {"model": "convnet:width=4,depth=1,norm=batch"},
    "BatchNorm, groups of 6": {"model": "convnet:width=4,depth=1,norm=batch", "batch_norm_batch": 6},
    "BatchNorm, 4 groups": {"model": "convnet:width=4,depth=1,norm=batch", "batch_norm_groups": 4},
}
GRADS = {
    "exact": {"grad": "exact"},
    "first-order": {"grad": "first-order"},
    "exact, K = 4": {"grad": "exact", "unroll": 4},
}
COMMON: dict[str, Any] = {
    **{"labels": 20, "validation": 0, "method": "mpl", "baselines": False, "steps": 20, "batch": 24},
    **{"labelled_batch": 12, "device": "cpu", "guide": "none", "alignment": "marginal"},
}


class Counted:
    """The sums of one process over gloo: how many, and of how many numbers."""

    def __init__(self, rank: int, count: int, place: str) -> None:
        store, patience = dist.FileStore(str(Path(place) / "store"), count), datetime.timedelta(minutes=30)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=patience)
        self.calls = self.numbers = 0
        self.processes = Processes(rank, count, self._reduce)

    def _reduce(self, flat: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.numbers += len(flat)
        dist.all_reduce(flat)
        return flat


def trained(start: Experiment, options: dict[str, Any], processes: Processes) -> list[torch.Tensor]:
    """The tensors of the state after all steps, in float64."""
    config = TrainConfig(**{**COMMON, **options})
    one = experiment.assemble(config, start.data, start.split, processes)
    models = {field: functional.cast(getattr(one.models, field), torch.float64) for field in ("student", "teacher")}
    prepare = start.data.augment.prepare
    augment = start.data.augment._replace(prepare=lambda x: prepare(x).double())
    one = one._replace(models=one.models._replace(**models), data=one.data._replace(augment=augment))
    (spec,) = (spec for spec in methods.plan(config) if spec.name == "mpl")
    phase = phases.prepare_phase(one, spec, {})
    *_, last = (event for event in loop.steps(phase, loop.start(phase)) if isinstance(event, loop.Stepped))
    found: list[torch.Tensor] = tree.leaves(last.state)
    return found


def together(count: int, fn: Callable[[Processes], Any]) -> list[Any]:
    """`fn(processes)` by each of so many processes."""

    def one(rank: int, place: str) -> None:
        torch.set_num_threads(1)
        torch.save(fn(Counted(rank, count, place).processes), Path(place) / f"{rank}.pt")

    with tempfile.TemporaryDirectory() as place:
        running = [FORK.Process(target=one, args=(rank, place)) for rank in range(count)]
        for process in running:
            process.start()
        for process in running:
            process.join()
        return [torch.load(Path(place) / f"{rank}.pt") for rank in range(count)]


def difference(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest |a − b| / |b| of any tensor; of those that are zero |a|."""
    pairs = [(a.double(), b.double()) for a, b in zip(one, other, strict=True)]
    return max(float((a - b).norm() / (b.norm() or 1.0)) for a, b in pairs)


def equal() -> None:
    """Print the largest difference for each network and estimator."""
    torch.set_num_threads(1)
    torch_private.load_forward_formulas()
    start = experiment.prepare(TrainConfig(**COMMON, model="mlp"))
    for norm, network in NORMS.items():
        for name, grad in GRADS.items():
            options = {**network, **grad}
            expected = trained(start, options, ALONE)
            for count in (2, 4):
                found = together(count, lambda processes, options=options: trained(start, options, processes))
                apart = max(difference(one, found[0]) for one in found)
                print(f"{norm:24} {name:13} {count} processes: {difference(found[0], expected):.1e}, apart {apart}")


def grouped() -> nn.Module:
    """The wide ResNet with GroupNorm."""
    module = wide_resnet()
    for part in [*module.modules()]:
        for name, norm in [*part.named_children()]:
            if isinstance(norm, nn.BatchNorm2d):
                setattr(part, name, nn.GroupNorm(8, norm.num_features))
    return module


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "mlp": (digit_mlp, (1, 8, 8), {}),
    "wrn-16-2, GroupNorm": (grouped, (3, 32, 32), {}),
    "wrn-16-2, synchronised": (wide_resnet, (3, 32, 32), {}),
    "wrn-16-2, own statistics": (wide_resnet, (3, 32, 32), {"groups": 2}),
}


def stepping(network: str, sizes: tuple[int, int], processes: Processes) -> Callable[[], object]:
    """A function that takes the next step of Meta Pseudo Labels with exact feedback, on random images."""
    build, shape, options = NETWORKS[network]
    plain = functional.from_module(build)
    alone = in_parts(plain, 0, recompute=False, groups=options["groups"]) if options else plain
    model: Model = alone if processes.count == 1 else shared_out(plain, processes, **options)
    rate = optim.sgd(0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    pair = Trainable(model, rate), Trainable(model, rate)
    recipe = Recipe(uda_weight=1.0)
    method = meta_pseudo_labels(*pair, estimators.exact(), targets.SOFT, Augment(identity, identity), recipe)
    labelled, unlabelled = (rng.normal(rng.key(seed), (size, *shape)) for seed, size in enumerate(sizes))
    batch = Batch(labelled, torch.arange(sizes[0]) % 10, unlabelled)
    state = [method.init(rng.key(0)), 0]

    def step() -> None:
        state[0], _ = method.step(state[0], batch, rng.key(state[1]))
        state[1] += 1

    return step


def _timed(step: Callable[[], object], count: int) -> tuple[float, float]:
    """Seconds of some steps, and those of the processor."""
    start, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        step()
    return time.perf_counter() - start, time.process_time() - processor


def _worker(rank: int, place: str, network: str, options: argparse.Namespace, orders: Any) -> None:
    torch.set_num_threads(1)
    counted = Counted(rank, 2, place)
    step = stepping(network, (options.labelled, 7 * options.labelled), counted.processes)
    while orders.recv():
        dist.barrier()
        counted.calls = counted.numbers = 0
        seconds = _timed(step, options.steps)
        orders.send((*seconds, counted.calls / options.steps, counted.numbers / options.steps))


def rate(network: str, options: argparse.Namespace) -> None:
    """Print how long two processes of one thread take for what one of two threads does."""
    torch_private.load_forward_formulas()
    with tempfile.TemporaryDirectory() as place:
        pipes = [FORK.Pipe() for _ in range(2)]
        running = [
            FORK.Process(target=_worker, args=(rank, place, network, options, pipes[rank][1]), daemon=True)
            for rank in range(2)
        ]
        for process in running:
            process.start()
        torch.set_num_threads(options.threads)
        step = stepping(network, (options.labelled, 7 * options.labelled), ALONE)
        times: list[tuple[float, ...]] = []
        for _ in range(options.rounds + 1):
            for pipe, _ in pipes:
                pipe.send(True)
            found = [pipe.recv() for pipe, _ in pipes]
            alone = _timed(step, options.steps)
            times.append((max(one[0] for one in found), alone[0], sum(one[1] for one in found), alone[1]))
        for pipe, _ in pipes:
            pipe.send(False)
    many, one = (1e3 * statistics.median(column) / options.steps for column in [*zip(*times[1:], strict=True)][:2])
    print(
        f"{network:24} two of one thread {many:8.1f} ms a step, one of {options.threads} {one:8.1f} ms: x "
        f"{_ratio([(two, one) for two, one, *_ in times[1:]])}, of the processor x "
        f"{_ratio([(two, one) for *_, two, one in times[1:]])}; {found[0][2]:.0f} sums of {found[0][3]:,.0f} numbers",
        flush=True,
    )


def _ratio(pairs: list[tuple[float, float]]) -> str:
    low, middle, high = statistics.quantiles([two / one for two, one in pairs], n=4)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Read the options, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["equal", "rate"])
    parser.add_argument("--network", choices=[*NETWORKS], nargs="+", default=[*NETWORKS])
    parser.add_argument("--labelled", type=int, default=8, help="labelled images a step; seven times as many without")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2, help="of the one process")
    parser.add_argument("--steps", type=int, default=1, help="in each round")
    options = parser.parse_args()
    if options.what == "equal":
        equal()
        return
    for network in options.network:
        rate(network, options)


if __name__ == "__main__":
    main()
