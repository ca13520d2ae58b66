"""Steps as they are and under `torch.compile(fullgraph=True)`: time, and how far the numbers move.

    python benchmarks/compile_cost.py --rounds 30
    python benchmarks/compile_cost.py --rounds 100 --port  # whole steps, beside the common port's written by hand

Steps of small networks, which live on calls more than on arithmetic, and of wide ResNets: Meta Pseudo Labels with exact
feedback, alone and as `metapl train` takes it with its views, one of MAML over tasks, and the gradient through 20 inner
steps. Both forms take turns in each round, and the figures are medians, and the median of the ratio of a round with its
quartiles, of the processor's time. The first calls, which compile, are told apart. Steps that have a state are taken 20
times by both, each from its own last state, before their states are compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch._dynamo
from torch import Tensor, nn

from metapl import estimators, methods, models, optim
from metapl.core import inside, rng, targets, tree
from metapl.core.types import PyTree
from metapl.core.unrolling import scan
from metapl.data.augment.base import Augment, identity
from metapl.data.loader import Batch
from metapl.evaluation import cost
from metapl.methods.base import Recipe, Trainable
from metapl.methods.mpl import meta_pseudo_labels
from metapl.nn import functional
from metapl.nn.layout import channels_last
from metapl.studies import bench
from metapl.training import loop, phases
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare

Step = tuple[Callable[..., PyTree], tuple[PyTree, ...]]
"""A function and its arguments."""


def meta_pseudo_labels_step(
    name: str = "mlp", shape: tuple[int, ...] = (1, 8, 8), labelled: int = 16, unlabelled: int = 64
) -> Step:
    """The default network of `metapl train`, 16 labelled and 64 unlabelled images, unless others are given."""
    trainable = Trainable(
        channels_last(functional.from_module(lambda: models.build(name, shape, 10))),
        optim.sgd(0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
    )
    method = meta_pseudo_labels(
        trainable, trainable, estimators.exact(), targets.SOFT, Augment(identity, identity), Recipe()
    )
    x, y = rng.normal(rng.key(2), (labelled, *shape)), rng.randint(rng.key(3), (labelled,), 10)
    batch = Batch(x, y, rng.normal(rng.key(4), (unlabelled, *shape)))
    return method.step, (method.init(rng.key(0)), batch, rng.key(1))


def train_step() -> Step:
    """A step of `metapl train --grad exact`: ten labelled digits and 128 unlabelled ones, moved and cut."""
    experiment = prepare(TrainConfig(grad="exact", guide="none", baselines=False, device="cpu"))
    phase = phases.prepare_phase(experiment, methods.plan(experiment.config)[0], {})
    return phase.method.step, (loop.start(phase).state, phase.batches(0), rng.key(1))


def maml_step() -> Step:
    """The gradient of the loss after one inner step, over four tasks of 25 examples."""
    model = functional.from_module(
        lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
    )
    params, buffers = model.init(rng.key(0))
    xs, ys = rng.normal(rng.key(1), (4, 25, 64)), rng.randint(rng.key(2), (4, 25), 5)

    def loss(params: PyTree, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model.apply(params, buffers, x, train=True)[0], y)

    def outer(params: PyTree, xs: Tensor, ys: Tensor) -> Tensor:
        def task(x: Tensor, y: Tensor) -> Tensor:
            return loss(tree.sub(params, tree.scale(0.1, inside.gradient(loss, params, x, y)[0])), x, y)

        return torch.vmap(task)(xs, ys).mean()

    return torch.func.grad(outer), (params, xs, ys)


def scan_step() -> Step:
    """The gradient through 20 steps of gradient descent, in the rate and in where they begin."""

    def loss(w: Tensor, x: Tensor) -> Tensor:
        return ((x @ w).tanh() ** 2).mean()

    def outer(w: Tensor, rate: Tensor, xs: Tensor) -> Tensor:
        def step(w: Tensor, x: Tensor) -> tuple[Tensor, tuple[()]]:
            return w - rate * inside.gradient(loss, w, x)[0], ()

        return (scan(step, w, xs)[0] ** 2).sum()

    given = rng.normal(rng.key(0), (64, 16)), torch.tensor(0.1), rng.normal(rng.key(1), (20, 32, 64))
    return torch.func.grad(outer, argnums=(0, 1)), given


def wrn_step(model: str = "wrn") -> Step:
    """A wide ResNet, 2 labelled and 14 unlabelled images."""
    return meta_pseudo_labels_step(model, (3, 32, 32), 2, 14)


STEPS = {
    "Meta Pseudo Labels": meta_pseudo_labels_step,
    "metapl train": train_step,
    "WRN-16-1": lambda: wrn_step("wrn:depth=16,width=1"),
    "WRN-28-2": wrn_step,
    "MAML": maml_step,
    "20 inner steps": scan_step,
}


STATEFUL = ("Meta Pseudo Labels", "metapl train", "WRN-16-1", "WRN-28-2")
"""Steps that return their next state first."""


def difference(fn: Callable[..., PyTree], fast: Callable[..., PyTree], given: tuple[PyTree, ...], steps: int) -> float:
    """The largest absolute difference of the results after so many steps, each from the state of the one before."""
    ends = []
    for call in (fn, fast):
        found = call(*given)
        for _ in range(steps - 1):
            found = call(found[0], *given[1:])
        ends.append(tree.leaves(found))
    return max(float((a - b).abs().max()) for a, b in zip(*ends, strict=True))


def against_port(rounds: int) -> None:
    """Compiled steps of Meta Pseudo Labels and the common port's, which is not compiled: the MLP, 16 + 112 images."""
    scene = bench.Scene("mlp", (1, 8, 8))
    names = ("first-order", "exact")
    calls, _ = bench.steps(scene, bench.choose(names))
    compiled = partial(torch.compile, fullgraph=True)
    calls |= {
        f"{name}, compiled": bench.running(scene, one, through=compiled) for name, one in bench.choose(names).items()
    }
    taken = cost.interleave(calls, rounds, scene.device, processor=True)
    for name, seconds in taken.items():
        ratios = [a / b for a, b in zip(seconds, taken["port, by hand"], strict=True)]
        low, middle, high = cost.quartiles(ratios)
        print(
            f"{name}: {1e3 * cost.quartiles(seconds)[1]:.2f} ms, of the port x {middle:.2f} [{low:.2f}, {high:.2f}]",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--port", action="store_true", help="beside the common port's step, and nothing else")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, backend {args.backend}")
    if args.port:
        against_port(args.rounds)
        return
    for name in args.steps:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        fn, given = STEPS[name]()
        fast = torch.compile(fn, fullgraph=True, backend=args.backend)
        start = time.perf_counter()
        fast(*given)
        seconds = time.perf_counter() - start
        error = difference(fn, fast, given, 20 if name in STATEFUL else 1)
        calls = {"eager": lambda fn=fn, given=given: fn(*given), "compiled": lambda fn=fast, given=given: fn(*given)}
        taken = cost.interleave(calls, args.rounds, torch.device("cpu"), processor=True)
        ratios = [b / a for a, b in zip(taken["eager"], taken["compiled"], strict=True)]
        low, middle, high = cost.quartiles(ratios)
        _, before, _ = cost.quartiles(taken["eager"])
        _, after, _ = cost.quartiles(taken["compiled"])
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        print(
            f"{name}: {1e3 * before:.2f} ms, compiled {1e3 * after:.2f} ms, x {middle:.3f} [{low:.3f}, {high:.3f}]; "
            f"the first call {seconds:.0f} s, graphs {graphs}, largest difference {error:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
