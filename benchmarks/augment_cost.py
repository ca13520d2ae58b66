"""What augmentation costs: CIFAR's strong view and its parts, on one core unless told otherwise.

    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 python benchmarks/augment_cost.py

All views take turns, batch by batch, in one process, every time with a key of its own.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch
from torch import Tensor

from metapl.core import rng
from metapl.data.augment import crops
from metapl.data.augment.base import View, compose
from metapl.data.augment.randaugment import randaugment


def views() -> dict[str, View]:
    """The strong view of Meta Pseudo Labels on CIFAR, and what it is made of."""
    weak = compose(crops.flip(), crops.pad_crop(4))
    parts = {
        "flip": crops.flip(),
        "pad_crop": crops.pad_crop(4),
        "randaugment": randaugment(),
        "cutout": crops.cutout(8),
    }
    return {"strong view": compose(weak, parts["randaugment"], parts["cutout"], weak), **parts}


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device != "cpu":
        torch.accelerator.synchronize()


def interleave(made: dict[str, View], images: Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of every view in every round, one view after another, after a round of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in made}
    for index in range(rounds + 1):
        for name, view in made.items():
            key = rng.fold_in(rng.key(1), index)
            wait(images.device.type)
            start = time.perf_counter()
            view(images, key)
            wait(images.device.type)
            if index:
                times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=896)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shape = (args.images, 3, args.size, args.size)
    images = rng.randint(rng.key(0), shape, 256).to(args.device, torch.uint8)
    print(
        f"{args.images} RGB images of {args.size} x {args.size}, uint8, {args.rounds} rounds, "
        f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, {platform.machine()}"
    )
    for name, values in interleave(views(), images, args.rounds).items():
        print(f"  {name:12} {1e3 * statistics.median(values):8.1f} ms   least {1e3 * min(values):8.1f} ms")


if __name__ == "__main__":
    main()
