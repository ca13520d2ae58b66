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
from functools import partial
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
    return {
        f"forward {count}": lambda: module(x),
        f"both {count}": lambda: torch.autograd.grad(module(x).sum(), params),
    }


def _single() -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """What says how long a call takes, and a byte; and how many of them they make."""
    size, some = Size(2, 2), torch.ones(TENSORS, NUMBERS).unbind()
    calls = {"tiny": _steps(TINY, size, [GRADS[0]])[GRADS[0]], "sums": lambda: [a + b for a, b in pairwise(some)]}
    count = sum(one.calls for one in passes.measure(TINY, size, GRADS[:1])[GRADS[0]].all)
    return calls, {"tiny": count, "sums": 3 * 4 * NUMBERS * (TENSORS - 1)}


class Timed(NamedTuple):
    """What was timed."""

    steps: dict[str, float]
    """Seconds of each."""
    speed: cost_model.Speed


def _speed(given: Network, size: Size, calls: Mapping[str, Callable[[], object]], rounds: int) -> Timed:
    """Seconds of the steps, and what the model needs of the machine; all calls take turns."""
    few, many = size.labelled, size.labelled + 2 * size.unlabelled
    single, counts = _single()
    given_calls = {**calls, **_module(given, few), **_module(given, many), **single}
    times = cost.interleave(given_calls, rounds, CPU, processor=True)
    seconds = {name: statistics.median(found) for name, found in times.items()}
    forward, both = (
        cost_model.line((few, seconds[f"{name} {few}"]), (many, seconds[f"{name} {many}"]))
        for name in ("forward", "both")
    )
    backward = cost_model.Line(both.fixed - forward.fixed, both.each - forward.each)
    each = [seconds[name] / count for name, count in counts.items()]
    return Timed({name: seconds[name] for name in calls}, cost_model.Speed(forward, backward, *each))


def compare(given: Network, size: Size, rounds: int) -> Iterable[dict[str, Any]]:
    """Model over count, and over the time if there are rounds, of each estimator."""
    calls = _steps(given, size, GRADS)
    timed = _speed(given, size, calls, rounds) if rounds else None
    for name, counted in passes.measure(given, size, GRADS).items():
        row = {
            "flops": sum(one.flops for one in counted.all) / cost.flops(calls[name]),
            "memory": max(cost_model.phases(counted).values()) / cost.peak_memory(calls[name], CPU),
        }
        if timed is not None:
            found = cost_model.timed(name, counted, size, timed.speed, partial(passes.plain, given))
            row |= {"time": found / timed.steps[name], "ms": 1e3 * timed.steps[name]}
        yield {"grad": name, **row}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=0, help="timed steps of each kind")
    parser.add_argument("--model", action="append", choices=NETWORKS, help="only these networks")
    chosen = parser.parse_args()
    print(f"torch {torch.__version__}; model over what is counted and timed")
    for model in chosen.model or NETWORKS:
        for labelled, ratio in SIZES:
            size = Size(labelled, labelled * ratio)
            for row in compare(Network(model, NETWORKS[model]), size, chosen.rounds):
                print(f"{model:30.30} {size.labelled}:{size.unlabelled:<3} {row.pop('grad'):24}", end="")
                print(*(f"{name} {value:.3f} " for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
