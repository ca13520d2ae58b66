"""How many threads torch and BLAS take on a CPU: one where networks are small.

A step of a small network is hundreds of short operations, and at the end of each the threads wait for each other. On
idle cores that takes as long as it saves, and where another program has one of the cores, ten times as long. It is the
same with the small matrices of the classical panel. `OMP_NUM_THREADS` has the last word.
"""

from __future__ import annotations

import os

import torch
from threadpoolctl import threadpool_limits

from metapl.core import tree
from metapl.registry import launch
from metapl.training import architectures
from metapl.training.experiment import Experiment

FLAT = ("mlp", "linear", "cosine")
"""Networks that take each weight once for an example. Others take it for every place of an image or every token."""

SMALL = 200_000
"""Numbers in such a network, of all runs that train together, up to which one thread is enough.

On two cores an MLP of 118,000 is as fast with one as with two, one of 670,000 takes 1.6 times as long with one.
"""

NAMED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables of the environment by which a user says how many."""


def settle(experiment: Experiment, together: int = 1) -> None:
    """Let torch and BLAS take one thread from now on, where that is enough and the user has not said how many.

    Where several processes share the work nothing is settled: torchrun has done it, and all must have the same number.

    Args:
        experiment: what is trained.
        together: how many such runs are one program.
    """
    said = any(name in os.environ for name in NAMED)
    alone = launch.processes() == 1
    if alone and not said and experiment.device.type == "cpu" and _enough(experiment, together):
        torch.set_num_threads(1)
        threadpool_limits(1, user_api="blas")


def _enough(experiment: Experiment, together: int) -> bool:
    """Whether student and teacher are small and flat."""
    texts = [architectures.text(experiment.config, field) for field in ("student", "teacher")]
    flat = all(text.partition(":")[0] in FLAT for text in texts)
    sizes = (tree.size(model.init(experiment.keys.root)) for model in experiment.models[:2])
    return flat and all(size * together <= SMALL for size in sizes)


def written(device: torch.device) -> str:
    """A device, of a CPU with the threads that torch takes on it."""
    if device.type != "cpu":
        return str(device)
    count = torch.get_num_threads()
    return f"{device} with {'one thread' if count == 1 else f'{count} threads'}"
