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
from metapl.core.types import Model
from metapl.training.experiment import Experiment

SMALL = 200_000
"""Numbers in the weights of a network, of all runs that train together, up to which one thread is enough.

On two cores an MLP of 118,000 is as fast with one as with two, one of 670,000 takes 1.6 times as long with one.
"""

NAMED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables of the environment by which a user says how many."""


def settle(experiment: Experiment, together: int = 1) -> None:
    """Let torch and BLAS take one thread from now on, where that is enough and the user has not said how many.

    Args:
        experiment: what is trained.
        together: how many such runs are one program.
    """
    said = any(name in os.environ for name in NAMED)
    if not said and experiment.device.type == "cpu" and _enough(experiment, together):
        import scipy.linalg  # noqa: F401, PLC0415 - has a BLAS of its own, which is only found once it is there

        torch.set_num_threads(1)
        threadpool_limits(1, user_api="blas")


def _enough(experiment: Experiment, together: int) -> bool:
    return all(_size(model, experiment) * together <= SMALL for model in experiment.models[:2])


def _size(model: Model, experiment: Experiment) -> float:
    """The numbers in the weights; infinite with convolutions, which take each of them many times."""
    params, buffers = model.init(experiment.keys.root)
    return torch.inf if any(value.ndim > 2 for value in params.values()) else tree.size((params, buffers))


def written(device: torch.device) -> str:
    """A device, of a CPU with the threads that torch takes on it."""
    if device.type != "cpu":
        return str(device)
    count = torch.get_num_threads()
    return f"{device} with {'one thread' if count == 1 else f'{count} threads'}"
