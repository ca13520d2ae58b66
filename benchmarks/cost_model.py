"""The model of docs/scaling.md against what is counted and timed: operations, memory and seconds of whole steps.

    OMP_NUM_THREADS=1 python benchmarks/cost_model.py --rounds 5

Of the network the model knows single passes that are counted on shapes alone; for seconds, one pass forward and back of
the plain module as it is timed here. What a call and a byte between the passes take is timed once, on a tiny network
and on a sum. Seconds are the processor's, and all calls take turns. Without --rounds nothing is timed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from metapl import models
from metapl.core import rng
from metapl.evaluation import cost
from metapl.nn.layout import AXES
from metapl.studies import bench, cost_model, passes
from metapl.studies.meta_network import Network
from metapl.studies.passes import Size

CPU = torch.device("cpu")
NETWORKS = {
    "mlp:width=512": (1, 28, 28),
    "wrn:depth=16,width=1": (3, 32, 32),
    "resnet18:width=16": (3, 32, 32),
    "vit:depth=3,width=64,heads=2": (3, 32, 32),
    "convnet": (3, 32, 32),
    "efficientnet:width=0.5,dropout=0,drop_path=0": (3, 32, 32),
}
"""The last two were not looked at while the model was made."""
SIZES = ((4, 7), (8, 2))
"""Labelled examples, and unlabelled ones for each of them."""
GRADS = ("first-order", "exact", "exact:route=difference")
TINY = Network("mlp:width=8,depth=1", (1, 8, 8))
NUMBERS, TENSORS = 2**18, 64
"""Of the sums that say what a byte takes: together they fit into no cache, as what an optimiser holds does not."""


class Machine(NamedTuple):
    """What single calls between the passes take here."""

    call: float
    byte: float


def _steps(given: Network, size: Size, grads: Iterable[str]) -> dict[str, Callable[[], object]]:
    scene = bench.Scene(given.model, given.shape, size.labelled, size.unlabelled // size.labelled)
    calls, _ = bench.steps(scene, bench.choose(tuple(grads)))
    return {name: calls[name] for name in grads}


def _module(given: Network, count: int) -> dict[str, Callable[[], object]]:
    """One pass of the plain module over so many examples, images channels last; without a way back and with it."""
    module = models.build(given.model, given.shape, given.classes)
    x, params = rng.normal(rng.key(0), (count, *given.shape)), list(module.parameters())
    if any(param.ndim == x.ndim == AXES for param in params):
        x = x.contiguous(memory_format=torch.channels_last)
    return {"forward": lambda: module(x), "both": lambda: torch.autograd.grad(module(x).sum(), params)}


def machine(rounds: int) -> Machine:
    """Of a step on a tiny network, and of a sum."""
    size, some = Size(2, 2), torch.ones(TENSORS, NUMBERS).unbind()
    calls = {**_steps(TINY, size, ["first-order"]), "sums": lambda: [a + b for a, b in pairwise(some)]}
    seconds = _medians(cost.interleave(calls, 8 * rounds, CPU, processor=True))
    count = sum(one.calls for one in passes.measure(TINY, size, ["first-order"])["first-order"].all)
    return Machine(seconds["first-order"] / count, seconds["sums"] / (3 * 4 * NUMBERS * (TENSORS - 1)))


def _medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(found) for name, found in times.items()}


def compare(given: Network, size: Size, here: Machine | None, rounds: int) -> Iterable[dict[str, Any]]:
    """Model over count, and over the time where there is a machine, of each estimator."""
    calls = _steps(given, size, GRADS)
    seconds: dict[str, float] = {}
    if here is not None:
        seconds = _medians(cost.interleave({**calls, **_module(given, size.unlabelled)}, rounds, CPU, processor=True))
        rows = cost_model.Rows(size.unlabelled, *passes.plain(given, size.unlabelled))
        forward = seconds["forward"] / size.unlabelled
        speed = cost_model.Speed(forward, seconds["both"] / size.unlabelled - forward, *here)
    for name, counted in passes.measure(given, size, GRADS).items():
        row = {
            "flops": sum(one.flops for one in counted.all) / cost.flops(calls[name]),
            "memory": max(cost_model.phases(counted).values()) / cost.peak_memory(calls[name], CPU),
        }
        if here is not None:
            found = cost_model.timed(name, counted, size, speed, rows)
            row |= {"time": found / seconds[name], "ms": 1e3 * seconds[name]}
        yield {"grad": name, **row}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=0, help="timed steps of each kind")
    parser.add_argument("--model", action="append", choices=NETWORKS, help="only these networks")
    chosen = parser.parse_args()
    here = machine(chosen.rounds) if chosen.rounds else None
    print(f"torch {torch.__version__}; {here}; model over what is counted and timed")
    for model in chosen.model or NETWORKS:
        for labelled, ratio in SIZES:
            size = Size(labelled, labelled * ratio)
            for row in compare(Network(model, NETWORKS[model]), size, here, chosen.rounds):
                print(f"{model:30.30} {size.labelled}:{size.unlabelled:<3} {row.pop('grad'):24}", end="")
                print(*(f"{name} {value:.3f} " for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
