"""Examples by index, in memory or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Examples(Protocol):
    """Examples by index, all of one shape: a tensor is one, and so is a store that reads them when they are asked for.

    What they hold is the stored form: uint8 grey levels for images, which views and `Augment.prepare` turn into what a
    network sees.
    """

    @property
    def shape(self) -> torch.Size:
        """`[examples, ...]`."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the examples."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """`[batch, ...]` for indices `[batch]`, int64."""
        ...


class Inputs(NamedTuple):
    """Examples of a known form that came from outside, to be predicted or to be learnt from without labels."""

    names: Sequence[str]
    """What tells each from the others: a file's path, a row's number."""
    x: Examples


class Problems(NamedTuple):
    """What is wrong with some fresh examples, by their positions; it fills as they are read."""

    unread: dict[int, str]
    """Those that cannot be read: blanks stand in their place."""
    doubtful: dict[int, str]
    """Those that can, but for something in them."""


class Subset:
    """Some of the examples of a store, which stays where it is."""

    def __init__(self, x: Examples, index: Tensor) -> None:
        self._x, self._index = x, index
        self.shape, self.dtype = torch.Size([len(index), *x.shape[1:]]), x.dtype

    def __len__(self) -> int:
        """How many there are."""
        return len(self._index)

    def __getitem__(self, index: Tensor) -> Tensor:
        """`[batch, ...]`."""
        return self._x[self._index[index]]


class Joined:
    """Stores of one shape and dtype, one after another."""

    def __init__(self, *parts: Examples) -> None:
        self.parts = parts
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        self.shape, self.dtype = torch.Size([int(self._ends[-1]), *parts[0].shape[1:]]), parts[0].dtype

    def __len__(self) -> int:
        """How many there are."""
        return self.shape[0]

    def __getitem__(self, index: Tensor) -> Tensor:
        """`[batch, ...]`."""
        found = torch.empty(len(index), *self.shape[1:], dtype=self.dtype)
        owner = torch.bucketize(index, self._ends, right=True)
        for place, part in enumerate(self.parts):
            mine = owner == place
            if mine.any():
                found[mine] = part[index[mine] - (int(self._ends[place]) - len(part))]
        return found


def subset(x: Examples, index: Tensor) -> Examples:
    """The examples of these indices: copied where they are in memory, else read when asked for."""
    return x[index] if isinstance(x, Tensor) else Subset(x, index)


def join(*parts: Examples) -> Examples:
    """The examples of all parts, one after another."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    return torch.cat(tensors) if len(tensors) == len(parts) else Joined(*parts)


def take(x: Examples, index: Tensor, device: torch.device) -> Tensor:
    """Examples by index, on a device."""
    return x[index.to(x.device) if isinstance(x, Tensor) else index].to(device)


def place(x: Examples, device: torch.device) -> Examples:
    """Examples in memory, moved to a device; others stay where they are and travel batch by batch."""
    return x.to(device) if isinstance(x, Tensor) else x
