"""Memory and time of an exact gradient through K steps: metapl's ways, `higher`, and nested `torch.func`.

    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 python benchmarks/unroll_cost.py

The problem is that of Meta Pseudo Labels: K batches of soft labels, K inner steps of SGD with momentum, an outer loss,
and its derivative in the logits θ of all labels. Memory is the most that is alive at once beyond what was there before,
counted tensor by tensor. Times are interleaved, and given as ratios to `higher`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import estimators, optim
from metapl.core import hvp, losses, rng, targets, tree
from metapl.core.types import Instance, Problem, TrainState
from metapl.estimators.many_steps import unrolled_gradient
from metapl.evaluation import cost
from metapl.nn import functional

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import higher

LR, MOMENTUM = 0.05, 0.9


def convnet() -> nn.Module:
    """Three convolutions with BatchNorm, 35 thousand parameters."""

    def block(old: int, new: int, stride: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(old, new, 3, stride, 1), nn.BatchNorm2d(new), nn.ReLU()

    return nn.Sequential(*block(3, 16, 1), *block(16, 32, 2), *block(32, 32, 2), nn.Flatten(), nn.Linear(2048, 10))


def instance(steps: int, batch: int) -> Instance:
    """K inner steps on random images with soft labels, and an outer batch."""
    model = functional.from_module(convnet)

    def inner(params, buffers, targets, x):
        logits, buffers = model.apply(params, buffers, x, train=True)
        return losses.cross_entropy(logits, targets), buffers

    def outer(params, buffers, outer_batch):
        x, y = outer_batch
        return losses.cross_entropy(model.apply(params, buffers, x, train=True)[0], y).mean()

    optimizer = optim.sgd(LR, momentum=MOMENTUM)
    params, buffers = model.init(rng.key(0))
    train_state = TrainState(params, buffers, optimizer.init(params))
    thetas = [rng.normal(key, (batch, 10)) for key in rng.split(rng.key(1), steps)]
    inner_batches = [rng.normal(key, (batch, 3, 32, 32)) for key in rng.split(rng.key(2), steps)]
    outer_batch = rng.normal(rng.key(3), (batch, 3, 32, 32)), torch.arange(batch) % 10
    return Instance(
        Problem(inner, outer, optimizer, targets.SOFT), thetas, train_state, inner_batches, outer_batch, rng.key(4)
    )


def by_unroll(given: Instance, **how: object) -> list[Tensor]:
    """metapl, by a method of `unroll`."""
    return list(unrolled_gradient(given, **how).grads)


def by_exact(given: Instance) -> list[Tensor]:
    """metapl's default: one forward-mode pass for one step, replay for more."""
    return list(estimators.exact().estimate(given, ())[0].grads)


def by_higher(given: Instance) -> list[Tensor]:
    """The same, as a user of `higher` writes it."""
    module = convnet()
    module.load_state_dict({**given.state.params, **given.state.buffers}, strict=False)
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM)
    thetas = [theta.clone().requires_grad_() for theta in given.thetas]
    with higher.innerloop_ctx(module, optimizer) as (train_state, stepper):
        for theta, x in zip(thetas, given.inner_batches, strict=True):
            stepper.step(F.cross_entropy(train_state(x), torch.softmax(theta, -1)))
        x, y = given.outer_batch
        return list(torch.autograd.grad(F.cross_entropy(train_state(x), y), thetas))


def by_nesting(given: Instance) -> list[Tensor]:
    """`torch.func.grad` of a loop of `torch.func.grad`."""
    problem, thetas, train_state, inner_batches, outer_batch, _ = given

    def examine(thetas: list[Tensor]) -> Tensor:
        params, buffers, state = train_state
        for theta, x in zip(thetas, inner_batches, strict=True):

            def loss(params, theta=theta, x=x, buffers=buffers):
                values, after = problem.inner(params, buffers, torch.softmax(theta, -1), x)
                return values.mean(), after

            grads, buffers = torch.func.grad(loss, has_aux=True)(params)
            updates, state = problem.optimizer.update(grads, state, params)
            params = tree.add(params, updates)
        return problem.outer(params, buffers, outer_batch)

    return torch.func.grad(examine)(thetas)


WAYS: dict[str, Callable[[Instance], list[Tensor]]] = {
    "exact (default)": by_exact,
    "replay": partial(by_unroll, method="replay"),
    "replay, checkpoints": partial(by_unroll, method="replay", checkpoints=True),
    "mixed": partial(by_unroll, method="mixed"),
    "mixed, checkpoints": partial(by_unroll, method="mixed", checkpoints=True),
    "reverse": partial(by_unroll, method="reverse"),
    "higher": by_higher,
    "torch.func, nested": by_nesting,
}


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """|found − expected| / |expected| over the θ of all steps."""
    return float(tree.norm(tree.sub(found, expected)) / tree.norm(expected))


def memory(steps: list[int], batch: int, most: int) -> list[dict[str, object]]:
    """Peak bytes of every way for every K; ways that keep all graphs only up to `most` steps."""
    rows: list[dict[str, object]] = []
    for count in steps:
        given = instance(count, batch)
        for name, way in WAYS.items():
            if count > most and name in ("reverse", "higher", "torch.func, nested"):
                continue
            way(given)  # whatever is set up once
            rows.append(
                {"way": name, "steps": count, "bytes": cost.peak_memory(partial(way, given), torch.device("cpu"))}
            )
    return rows


def times(names: list[str], steps: int, batch: int, rounds: int) -> list[dict[str, object]]:
    """Seconds of every way, and the quartiles of its ratio to `higher` in the same round."""
    given = instance(steps, batch)
    cpu = torch.device("cpu")
    taken = cost.interleave({name: partial(WAYS[name], given) for name in names}, rounds, cpu)
    truth = by_higher(given)
    rows: list[dict[str, object]] = []
    for name, values in taken.items():
        ratios = [a / b for a, b in zip(values, taken["higher"], strict=True)]
        error = distance(WAYS[name](given), truth)
        rows.append(
            {
                "way": name,
                "steps": steps,
                "seconds": statistics.median(values),
                "ratio": cost.quartiles(ratios),
                "error": error,
            }
        )
    return rows


def differences(steps: list[int], batch: int, radii: list[float]) -> None:
    """How far central differences are from the exact gradient, for every K and radius."""
    print("method='difference', |found - exact| / |exact|, single precision")
    print(f"{'':8}" + "".join(f"{'radius ' + format(radius, 'g'):>16}" for radius in radii))
    for count in steps:
        given = instance(count, batch)
        exact = by_unroll(given, method="replay")
        cells = [distance(by_unroll(given, method=hvp.difference(radius)), exact) for radius in radii]
        print(f"K = {count:<4}" + "".join(f"{cell:16.3g}" for cell in cells))


def show(found: dict[str, object]) -> None:
    """Both tables."""
    counts = sorted({row["steps"] for row in found["memory"]})
    peaks = {(row["way"], row["steps"]): row["bytes"] for row in found["memory"]}
    if counts:
        print(f"peak memory, MiB; a train state is {found['carry'] / 2**20:.3f} MiB")
        print(f"{'':22}" + "".join(f"{'K = ' + str(count):>10}" for count in counts))
    for name in WAYS if counts else ():
        cells = [peaks.get((name, count)) for count in counts]
        print(f"{name:22}" + "".join(f"{'':>10}" if cell is None else f"{cell / 2**20:10.1f}" for cell in cells))
    for row in found["times"]:
        low, middle, high = row["ratio"]
        print(
            f"{row['way']:22} K = {row['steps']}: {row['seconds']:6.2f} s, {middle:.3f} [{low:.3f}, {high:.3f}] "
            f"of higher, off by {row['error']:.0e}"
        )


def main() -> None:
    """Measure, print, and write a JSON file if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 2, 16, 64], help="K whose memory is measured")
    parser.add_argument("--most", type=int, default=16, help="K up to which the ways that keep all graphs are run")
    parser.add_argument("--timed", type=int, nargs="*", default=[16], help="K that are timed")
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="what is timed, beside higher"
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--radii", type=float, nargs="+", help="show the error of central differences, and no more")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.radii:
        differences(args.steps, args.batch, args.radii)
        return
    given = instance(1, args.batch)
    names = [name for name in WAYS if name in {*args.ways, "higher"}]
    found = {
        "batch": args.batch,
        "rounds": args.rounds,
        "carry": sum(leaf.numel() * leaf.element_size() for leaf in tree.leaves(given.state)),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "memory": memory(args.steps, args.batch, args.most),
        "times": [row for count in args.timed for row in times(names, count, args.batch, args.rounds)],
    }
    show(found)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
