"""Mini-batches as a pure function of the step number, so that any step can be drawn again."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from metapl import rng
from metapl.types import Key


class Batch(NamedTuple):
    """What one step sees, before augmentation: `[labelled, ...]`, `[labelled]`, `[unlabelled, ...]`."""

    x_labelled: Tensor
    y_labelled: Tensor
    x_unlabelled: Tensor


def stream(count: int, size: int, key: Key) -> Callable[[int], Tensor]:
    """Indices `[size]` of each step's batch: epochs one after another, each in an order of its own.

    Where a batch would hold the whole set or more, every step sees the whole set once.
    """
    if count <= size:
        return lambda step: torch.arange(count)  # noqa: ARG005 - every step is the same

    @lru_cache(maxsize=2)
    def order(epoch: int) -> Tensor:
        return rng.permutation(rng.fold_in(key, epoch), count)

    def indices(step: int) -> Tensor:
        epoch, offset = divmod(step * size, count)
        return (
            torch.cat([order(epoch)[offset:], order(epoch + 1)])[:size]
            if offset + size > count
            else (order(epoch)[offset : offset + size])
        )

    return indices


def batches(
    labelled: tuple[Tensor, Tensor], unlabelled: Tensor, sizes: tuple[int, int], key: Key, unroll: int = 1
) -> Callable[[int], Batch]:
    """The batch of each step.

    Args:
        labelled: examples and their class indices.
        unlabelled: examples.
        sizes: labelled and unlabelled examples a batch.
        key: randomness.
        unroll: unlabelled batches a step, in a row; they are the same batches in the same order for every `unroll`.
    """
    x, y = labelled
    labelled_key, unlabelled_key = rng.split(key, 2)
    labelled_indices = stream(len(x), sizes[0], labelled_key)
    unlabelled_indices = stream(len(unlabelled), sizes[1], unlabelled_key)

    def at(step: int) -> Batch:
        index = labelled_indices(step).to(x.device)
        several = torch.cat([unlabelled_indices(step * unroll + offset) for offset in range(unroll)])
        return Batch(x[index], y[index], unlabelled[several.to(x.device)])

    return at
