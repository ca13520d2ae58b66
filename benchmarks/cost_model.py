"""The formulas of docs/scaling.md against what is counted: operations and memory of whole steps.

    python benchmarks/cost_model.py

F and B, the operations of an example's forward pass and of its way back, A, the bytes that are kept in between, and P,
the bytes of the parameters, are measured on one pass of the network alone. The rest follows. Nothing is timed.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch

from metapl import models
from metapl.core import rng
from metapl.evaluation import cost
from metapl.studies import bench

NETWORKS = {
    "mlp:width=512": (1, 28, 28),
    "wrn:depth=16,width=1": (3, 32, 32),
    "resnet18:width=16": (3, 32, 32),
    "vit:depth=3,width=64,heads=2": (3, 32, 32),
}
SIZES = ((4, 7), (8, 2))
"""Labelled examples, and unlabelled ones for each of them."""
GRADS = ("first-order", "exact", "exact:route=difference")
STATES = 7
"""Copies of all parameters: gradients, updates and new states of both optimisers."""


class Network(NamedTuple):
    """What the formulas need to know of a network."""

    forward: int
    """Operations of a forward pass of one example."""
    backward: int
    """Of its way back."""
    kept: float
    """Bytes kept for the way back, of one example."""
    parameters: int
    """Bytes of all parameters."""


def measured(model: str, shape: tuple[int, ...], count: int = 8) -> Network:
    """From one pass of the network."""
    module = models.build(model, shape, bench.CLASSES)
    x = rng.normal(rng.key(0), (count, *shape))
    with torch.no_grad():
        forward = cost.flops(lambda: module(x)) // count
    both = cost.flops(lambda: torch.autograd.grad(module(x).sum(), list(module.parameters()))) // count
    parameters = sum(4 * one.numel() for one in module.parameters())
    return Network(forward, both - forward, cost.peak_memory(lambda: module(x), x.device) / count, parameters)


def operations(network: Network, labelled: int, unlabelled: int, name: str) -> int:
    """Teacher on three views, student, exam; tangents have the products of a way back."""
    passes = labelled + 2 * unlabelled + unlabelled + labelled
    beyond = {"exact": network.backward, "exact:route=difference": network.forward}.get(name, 0)
    return (network.forward + network.backward) * passes + beyond * unlabelled


def memory(network: Network, labelled: int, unlabelled: int) -> float:
    """The teacher's pass is kept while the student's is."""
    return network.kept * (labelled + 3 * unlabelled) + STATES * network.parameters


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"torch {torch.__version__}; formula over count, of operations and of memory")
    for model, shape in NETWORKS.items():
        network = measured(model, shape)
        for labelled, ratio in SIZES:
            calls, _ = bench.steps(bench.Scene(model, shape, labelled, ratio), bench.choose(GRADS))
            unlabelled = labelled * ratio
            for name in GRADS:
                flops = operations(network, labelled, unlabelled, name) / cost.flops(calls[name])
                peak = memory(network, labelled, unlabelled) / cost.peak_memory(calls[name], torch.device("cpu"))
                print(f"{model:22} {labelled}:{unlabelled:<3} {name:24} {flops:.3f} {peak:.3f}", flush=True)


if __name__ == "__main__":
    main()
