"""What an outer step of MAML costs: `examples/maml.py` against the same program on `higher` and on TorchOpt.

    PYTHONPATH=examples python benchmarks/maml_cost.py --compiled

All take turns in one process, and the figures are medians of the ratios of neighbouring steps, in seconds of the
processor. All find the same gradient, but where the rounding of float32 puts a ReLU on the other side of its kink.
TorchOpt is left out where it is not installed, and the step under `torch.compile(fullgraph=True)` without --compiled.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from functools import partial

import higher
import maml
import omniglot
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import metapl as mp

Params = dict[str, Tensor]


def by_metapl(channels: int, theta: Params, tasks: omniglot.Tasks, *, fast: bool = False) -> Callable[[], Params]:
    """Eight tasks side by side."""
    model = mp.from_module(partial(omniglot.network, channels=channels))
    step = partial(maml.meta_gradient, partial(maml.learn, model, 1))
    step = torch.compile(step, fullgraph=True) if fast else step
    return lambda: step(theta, tasks)[1]


def by_higher(channels: int, theta: Params, tasks: omniglot.Tasks) -> Callable[[], Params]:
    """One task after another, each on a patched copy of the network."""
    network = omniglot.network(channels=channels)
    network.load_state_dict(theta)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.4)

    def gradient() -> Params:
        network.zero_grad()
        for x, y, query_x, query_y in zip(*tasks, strict=True):
            with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False) as (patched, steps):
                steps.step(cross_entropy(patched(x), y))
                (cross_entropy(patched(query_x), query_y) / len(tasks[0])).backward()
        return {name: leaf.grad for name, leaf in network.named_parameters()}

    return gradient


def by_torchopt(channels: int, theta: Params, tasks: omniglot.Tasks) -> Callable[[], Params]:
    """One task after another, by a functional optimiser."""
    import torchopt  # noqa: PLC0415 - not a dependency

    network = omniglot.network(channels=channels)

    def gradient() -> Params:
        leaves = {name: leaf.clone().requires_grad_() for name, leaf in theta.items()}
        for x, y, query_x, query_y in zip(*tasks, strict=True):
            optimizer = torchopt.FuncOptimizer(torchopt.sgd(0.4))
            params = optimizer.step(cross_entropy(functional_call(network, leaves, (x,)), y), leaves)
            (cross_entropy(functional_call(network, params, (query_x,)), query_y) / len(tasks[0])).backward()
        return {name: leaf.grad for name, leaf in leaves.items()}

    return gradient


def main() -> None:
    """Let them take turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compiled", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (50, 20, 28, 28), generator=generator, dtype=torch.uint8)
    tasks = omniglot.draw(images, generator, args.tasks)
    theta, _ = mp.from_module(partial(omniglot.network, channels=args.channels)).init(mp.key(0))
    ways = {"metapl": by_metapl, "higher": by_higher}
    if importlib.util.find_spec("torchopt"):
        ways["torchopt"] = by_torchopt
    if args.compiled:
        ways["compiled"] = partial(by_metapl, fast=True)
    calls = {name: way(args.channels, theta, tasks) for name, way in ways.items()}
    first = {name: {key: leaf.clone() for key, leaf in call().items()} for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            taken[name].append(time.process_time() - start)
    for name, seconds in taken.items():
        ratios = [own / other for own, other in zip(taken["metapl"], seconds, strict=True)]
        off = mp.tree.norm(mp.tree.sub(first[name], first["metapl"])) / mp.tree.norm(first["metapl"])
        print(
            f"{name:9} {statistics.median(seconds):.3f} s; metapl takes {statistics.median(ratios):.2f} of it "
            f"[{min(ratios):.2f}, {max(ratios):.2f}]; gradients differ by {float(off):.0e}"
        )


if __name__ == "__main__":
    main()
