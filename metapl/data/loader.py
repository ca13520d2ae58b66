"""Mini-batches as a pure function of the step number, so that any step can be drawn again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key
from metapl.data.examples import Examples, take
from metapl.data.split import Split
from metapl.registry.errors import InputError

LOG = logging.getLogger("metapl")
"""Where files are named that cannot be read any more."""


class Batch(NamedTuple):
    """What one step sees, before augmentation: `[labelled, ...]`, `[labelled]`, `[unlabelled, ...]`."""

    x_labelled: Tensor
    y_labelled: Tensor
    x_unlabelled: Tensor
    labelled: Tensor | None = None
    """Positions `[labelled]` in the training pool, for methods that look something up by example."""
    unlabelled: Tensor | None = None


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


Positions: TypeAlias = tuple[Tensor, Tensor]
"""Of a step's labelled and unlabelled examples in the training pool, `[labelled]` and `[unlabelled]`."""


def positions(split: Split, sizes: tuple[int, int], key: Key, unroll: int = 1) -> Callable[[int], Positions]:
    """Which examples each step sees.

    Args:
        split: which of the pool are labelled and unlabelled.
        sizes: labelled and unlabelled examples a batch.
        key: randomness.
        unroll: unlabelled batches a step, in a row; they are the same batches in the same order for every `unroll`.
    """
    labelled_key, unlabelled_key = rng.split(key, 2)
    labelled = stream(len(split.labelled), sizes[0], labelled_key)
    unlabelled = stream(len(split.unlabelled), sizes[1], unlabelled_key)

    def at(step: int) -> Positions:
        several = torch.cat([unlabelled(step * unroll + offset) for offset in range(unroll)])
        return split.labelled[labelled(step)], split.unlabelled[several]

    return at


def gather(x: Examples, y: Tensor, found: Positions) -> Batch:
    """The batch of these examples, on the device of the classes; of positions `[members, ...]`, one a member."""
    labelled, unlabelled = found
    here, there = labelled.to(y.device), unlabelled.to(y.device)
    return Batch(take(x, labelled, y.device), y[here], take(x, unlabelled, y.device), here, there)


def batches(
    x: Examples, y: Tensor, split: Split, sizes: tuple[int, int], key: Key, unroll: int = 1
) -> Callable[[int], Batch]:
    """The batch of each step: `gather` of `positions`.

    Args:
        x: the training pool.
        y: its class indices, on the device where the batches are wanted.
        split: as of `positions`, and the rest too.
        sizes: labelled and unlabelled examples.
        key: randomness.
        unroll: unlabelled batches a step.
    """
    at = positions(split, sizes, key, unroll)
    return lambda step: gather(x, y, at(step))


def in_order(
    x: Examples, device: torch.device, prepare: Callable[[Tensor], Tensor] = lambda x: x, size: int = 1024
) -> Iterator[Tensor]:
    """Batches of all stored examples in their order, readied for a network by `prepare`."""
    return (prepare(take(x, index, device)) for index in torch.arange(len(x)).split(size))


LATER = 2**24
"""Steps by which the batch comes later that takes the place of one that cannot be read."""

ATTEMPTS = 10
"""Batches in a row that cannot be read, after which none will do."""


def passing(batches: Callable[[int], Batch]) -> Callable[[int], Batch]:
    """The same batches; where a file cannot be read any more, that is said once, and another batch takes the place.

    Which one is a function of the step, so that a run that goes on sees the same as long as the same files are bad.

    Raises:
        InputError: one batch after another cannot be read.
    """
    said: set[str] = set()

    def at(step: int) -> Batch:
        for attempt in range(ATTEMPTS):
            try:
                return batches(step + attempt * LATER)
            except InputError as error:
                last = str(error)
                if last not in said:
                    LOG.warning("%s; batches with it give way to others", last)
                said.add(last)
        raise InputError(f"{ATTEMPTS} batches in a row cannot be read, the last one since {last}")

    return at


def ahead(batches: Callable[[int], Batch]) -> Callable[[int], Batch]:
    """The same batches, the next one being read by a thread meanwhile: for examples that come from files."""
    reader = ThreadPoolExecutor(1)
    coming: dict[int, Future[Batch]] = {}

    def at(step: int) -> Batch:
        found = coming.pop(step, None) or reader.submit(batches, step)
        coming.clear()
        coming[step + 1] = reader.submit(batches, step + 1)
        return found.result()

    return at
