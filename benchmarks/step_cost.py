"""What one training step costs: each estimator against the paper's, and a plain step against hand-written PyTorch.

    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 python benchmarks/step_cost.py

All variants of a row take turns, step by step, in one process, and the figures are medians of the ratios of
neighbouring steps: absolute times on a shared machine drift by more than what is measured here.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import estimators, optim
from metapl.core import rng, targets
from metapl.data.augment.base import Augment, identity
from metapl.data.loader import Batch
from metapl.methods.base import Method, Recipe, Trainable
from metapl.methods.mpl import meta_pseudo_labels
from metapl.methods.supervised import supervised
from metapl.models import mlp
from metapl.nn import functional


class Block(nn.Module):
    """Pre-activation residual block of a wide ResNet."""

    def __init__(self, channels: int, grown: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(grown)
        self.conv1 = nn.Conv2d(channels, grown, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(grown, grown, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(channels, grown, 1, stride, bias=False) if channels != grown else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels, height, width] to [batch, grown, height / stride, width / stride]."""
        y = F.leaky_relu(self.norm1(x), 0.2)
        straight = self.shortcut(y) if self.shortcut else x
        return straight + self.conv2(F.leaky_relu(self.norm2(self.conv1(y)), 0.2))


def wide_resnet() -> nn.Module:
    """WRN-16-2 without dropout: 0.69 M parameters."""
    blocks: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)]
    channels = 16
    for grown, stride in ((32, 1), (64, 2), (128, 2)):
        blocks += [Block(channels, grown, stride), Block(grown, grown, 1)]
        channels = grown
    tail = (nn.BatchNorm2d(channels), nn.LeakyReLU(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*blocks, *tail, nn.Linear(channels, 10))


def digit_mlp() -> nn.Module:
    """The default network of `metapl train`."""
    return mlp((1, 8, 8), 10)


NETWORKS = {"wrn-16-2": (wide_resnet, (3, 32, 32)), "mlp": (digit_mlp, (1, 8, 8))}
RULE = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def interleave(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step of every variant, one after another in each round, after a round of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if index:
                times[name].append(time.perf_counter() - start)
    return times


def running(method: Method, batch: Batch) -> Callable[[], object]:
    """A function that takes the method's next step."""
    state = [method.init(rng.key(0)), rng.key(1)]

    def step() -> None:
        state[1] = rng.fold_in(state[1], 1)
        state[0], _ = method.step(state[0], batch, state[1])

    return step


def by_hand(build: Callable[[], nn.Module], batch: Batch, decay: float) -> Callable[[], object]:
    """The supervised step as one writes it without any library: autograd, torch.optim, a moving average."""
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, **RULE)
    average = copy.deepcopy(model)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(batch.x_labelled), batch.y_labelled).backward()
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)

    return step


def report(title: str, times: dict[str, list[float]], base: str) -> None:
    """Median seconds, and the median of the ratio to the base's step of the same round, with its quartiles."""
    print(f"\n{title}")
    for name, values in times.items():
        ratios = [a / b for a, b in zip(values, times[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"  {name:22} {1e3 * statistics.median(values):8.1f} ms   x {middle:.3f}  [{low:.3f}, {high:.3f}]")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=sorted(NETWORKS), default="wrn-16-2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--unlabelled", type=int, default=64)
    parser.add_argument("--labelled", type=int, default=16)
    args = parser.parse_args()
    build, shape = NETWORKS[args.network]
    model = functional.from_module(build)
    x_labelled = rng.normal(rng.key(2), (args.labelled, *shape))
    y_labelled = rng.randint(rng.key(3), (args.labelled,), 10)
    batch = Batch(x_labelled, y_labelled, rng.normal(rng.key(4), (args.unlabelled, *shape)))
    plain = Batch(batch.x_unlabelled, rng.randint(rng.key(5), (args.unlabelled,), 10), batch.x_unlabelled)
    trainable = Trainable(model, optim.sgd(0.05, **RULE))
    augment, recipe = Augment(identity, identity), Recipe()
    print(
        f"{args.network}, {args.unlabelled} unlabelled and {args.labelled} labelled examples, {args.rounds} rounds, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}"
    )
    arms = {
        "first-order": (estimators.first_order(), targets.SAMPLED),
        "exact, forward": (estimators.exact(route="forward"), targets.SOFT),
        "exact, reverse": (estimators.exact(route="reverse"), targets.SOFT),
        "unroll": (estimators.unroll(), targets.SOFT),
        "none": (estimators.none(), targets.SOFT),
    }
    steps = {
        name: running(meta_pseudo_labels(trainable, trainable, estimator, kind, augment, recipe), batch)
        for name, (estimator, kind) in arms.items()
    }
    report("Meta Pseudo Labels with UDA, one step, against first-order", interleave(steps, args.rounds), "first-order")
    pair = {
        "by hand": by_hand(build, plain, recipe.ema),
        "metapl supervised": running(supervised(trainable, augment, recipe._replace(uda_weight=0.0)), plain),
    }
    report("a supervised step, against hand-written PyTorch", interleave(pair, 3 * args.rounds), "by hand")


if __name__ == "__main__":
    main()
