"""Memory and CPU time of the gradient through a whole training run, for every plan of checkpoints.

    python benchmarks/long_unroll_cost.py --steps 300 --rounds 5

A perceptron 64-256-10 takes K steps of gradient descent on 64 examples each; the outer loss after them is
differentiated in the learning rate of each layer. The reference is a plain loop of `torch.autograd.grad` that keeps
every graph. Memory is the most that is alive at once beyond what was there before, counted tensor by tensor; times are
CPU times of the process, interleaved, and given as ratios to the plain loop in the same round.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from metapl.core import autodiff, checkpoints, inside, losses, rng, tree
from metapl.core.types import Params, PyTree
from metapl.core.unrolling import scan
from metapl.evaluation import cost

Given = tuple[Params, PyTree, PyTree, Params]
"""Parameters, batches stacked along the steps, an outer batch and a learning rate for each parameter."""


def problem(steps: int, dtype: torch.dtype) -> Given:
    """Random examples with random classes."""
    keys = rng.split(rng.key(0), 6)
    params = {
        "w1": rng.normal(keys[0], (64, 256)) / 8.0,
        "b1": torch.zeros(256),
        "w2": rng.normal(keys[1], (256, 10)) / 16.0,
        "b2": torch.zeros(10),
    }
    batches = rng.normal(keys[2], (steps, 64, 64)), rng.randint(keys[3], (steps, 64), 10)
    outer_batch = rng.normal(keys[4], (256, 64)), rng.randint(keys[5], (256,), 10)
    return tree.to((params, batches, outer_batch, {name: torch.tensor(0.05) for name in params}), dtype)


def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
    """The mean cross entropy."""
    hidden = torch.relu(x @ params["w1"] + params["b1"])
    return losses.cross_entropy(hidden @ params["w2"] + params["b2"], y).mean()


def by_scan(given: Given, **how: object) -> Params:
    """metapl, by a method and a plan of `scan`."""
    params, batches, outer_batch, rates = given

    def outer(rates: Params) -> tuple[Tensor, tuple[()]]:
        def step(w: Params, batch: tuple[Tensor, Tensor]) -> tuple[Params, tuple[()]]:
            grads, _ = inside.gradient(loss, w, *batch)
            return {name: w[name] - rates[name] * grads[name] for name in w}, ()

        return loss(scan(step, params, batches, **how)[0], *outer_batch), ()

    return autodiff.value_and_grad(outer, rates)[2]


def by_loop(given: Given) -> Params:
    """The same in plain autograd, which keeps everything."""
    params, (xs, ys), outer_batch, rates = given
    rates = {name: rate.clone().requires_grad_() for name, rate in rates.items()}
    w = {name: param.clone().requires_grad_() for name, param in params.items()}
    for x, y in zip(xs, ys, strict=True):
        grads = torch.autograd.grad(loss(w, x, y), list(w.values()), create_graph=True)
        w = {name: w[name] - rates[name] * grad for name, grad in zip(w, grads, strict=True)}
    found = torch.autograd.grad(loss(w, *outer_batch), list(rates.values()))
    return dict(zip(rates, found, strict=True))


def ways(folder: str, recorded: int) -> dict[str, Callable[[Given], Params]]:
    """All of them by name, with so many steps recorded at a time where that can be chosen."""
    hundred = checkpoints.disk(folder, every=100, within=checkpoints.every(recorded))
    return {
        "plain loop": by_loop,
        "reverse": partial(by_scan, method="reverse"),
        "everything": by_scan,
        f"every({recorded})": partial(by_scan, checkpoints=checkpoints.every(recorded)),
        "sqrt": partial(by_scan, checkpoints="sqrt"),
        "log": partial(by_scan, checkpoints="log"),
        f"log(recorded={recorded})": partial(by_scan, checkpoints=checkpoints.log(recorded=recorded)),
        f"disk(every=100), every({recorded})": partial(by_scan, checkpoints=hundred),
    }


def times(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every call, one after another in each round."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            found[name].append(time.process_time() - start)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[300])
    parser.add_argument("--ways", nargs="+", help="the first words of what is measured; all unless given")
    parser.add_argument("--recorded", type=int, default=16, help="steps recorded at a time")
    parser.add_argument("--rounds", type=int, default=5, help="0 for memory alone")
    parser.add_argument("--no-memory", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asked = tuple(args.ways or [""])
        chosen = {name: way for name, way in ways(folder, args.recorded).items() if name.startswith(asked)}
        for way in chosen.values():
            way(problem(2, torch.float32))  # whatever is set up once
        for count in args.steps:
            given = problem(count, torch.float32)
            for name, way in chosen.items() if not args.no_memory else ():
                peak = cost.peak_memory(partial(way, given), torch.device("cpu"))
                print(f"K = {count}, {name:30} {peak / 2**20:8.2f} MiB", flush=True)
            taken = times({name: partial(way, given) for name, way in chosen.items()}, args.rounds)
            for name, values in taken.items() if args.rounds else ():
                low, middle, high = cost.quartiles(
                    [a / b for a, b in zip(values, next(iter(taken.values())), strict=True)]
                )
                print(
                    f"K = {count}, {name:30} {min(values):8.2f} s, x {middle:.2f} [{low:.2f}, {high:.2f}]", flush=True
                )


if __name__ == "__main__":
    main()
