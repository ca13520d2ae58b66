"""Augmentations: pure functions of a batch and a key, drawn anew for every example, on the batch's device.

Examples:
    >>> import torch
    >>> from metapl.core import rng
    >>> from metapl.data.augment import base
    >>> view = base.compose(base.shift(1), base.noise(0.1))
    >>> view(torch.zeros(4, 1, 8, 8), rng.key(0)).shape
    torch.Size([4, 1, 8, 8])
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key

View: TypeAlias = Callable[[Tensor, Key], Tensor]
"""`view(x, key)`: a batch shaped as `x` `[batch, ...]`."""


def _require_size(view: str, size: float) -> None:
    if size < 0:
        raise ValueError(f"{view}({size}) must not be negative")


def identity(x: Tensor, key: Key) -> Tensor:  # noqa: ARG001 - a view takes a key
    """The batch as it is."""
    return x


class Augment(NamedTuple):
    """The views of an example: consistency target and exam see the weak one, the lesson the strong one.

        stored ─► shared ─┬─► weak ──► prepare ─► network
                          └─► strong ─► prepare ─► network

    An unlabelled example has one shared part for its two views, such as a crop. Evaluation sees `prepare` alone.
    """

    weak: View
    strong: View
    shared: View = identity
    prepare: Callable[[Tensor], Tensor] = lambda x: x
    """From stored examples, augmented or not, to what a network sees, such as grey levels to standardised numbers."""


_part: ContextVar[tuple[Tensor, int] | None] = ContextVar("part", default=None)


@contextmanager
def part_of_batch(rows: Tensor, size: int) -> Iterator[None]:
    """Within the block views are given the examples `rows` of a batch of this size, and draw for them what it would."""
    token = _part.set((rows, size))
    try:
        yield
    finally:
        _part.reset(token)


def drawn_for(x: Tensor) -> tuple[int, Any]:
    """For how many examples a view of `x` draws, those of the whole batch, and the index that takes those of `x`."""
    part = None if torch.compiler.is_compiling() else _part.get()
    return (len(x), slice(None)) if part is None else (part[1], part[0])


class WholeBatchError(ValueError):
    """A view looks at other examples of the batch than those that it was given."""


def require_whole(x: Tensor) -> None:
    """For views that look at the rest of the batch.

    Raises:
        WholeBatchError: `x` is a part of one.
    """
    if drawn_for(x)[0] != len(x):
        raise WholeBatchError("a view that looks at the whole batch was given a part of it")


_uncompiled: WeakValueDictionary[int, View] = WeakValueDictionary()
_numbers = itertools.count()


@torch.library.custom_op("metapl::view", mutates_args=(), schema="(Tensor x, Tensor key, int number) -> Tensor")
def _called(x: Tensor, key: Tensor, number: int) -> Tensor:
    return _uncompiled[number](x, key)


@_called.register_fake
def _shaped(x: Tensor, key: Tensor, number: int) -> Tensor:
    del key, number
    return torch.empty_like(x)


def uncompiled(view: View) -> View:
    """The same view, which a compiled step calls as it is: for one that reads numbers back from the device.

    The step stays one graph, in which the view is one operation. It must return a tensor of its own, of the shape, the
    type and the strides of `x`.
    """
    number = next(_numbers)
    _uncompiled[number] = view  # for as long as the view below is there

    def called(x: Tensor, key: Key) -> Tensor:
        found: Tensor = _called(x, key, number) if torch.compiler.is_compiling() else view(x, key)
        return found

    return called


def compose(*views: View) -> View:
    """One view after another, each with a key of its own."""

    def view(x: Tensor, key: Key) -> Tensor:
        for one, one_key in zip(views, rng.split(key, len(views)), strict=True):
            x = one(x, one_key)
        return x

    return view


def noise(std: float) -> View:
    """Gaussian noise of the given standard deviation, in the units of the data."""
    _require_size("noise", std)
    return lambda x, key: x + std * normal_for(x, key)


def normal_for(x: Tensor, key: Key) -> Tensor:
    """Standard normal numbers shaped as `x`."""
    size, own = drawn_for(x)
    return rng.normal(key, (size, *x.shape[1:]), x.dtype, x.device)[own]


def _window(x: Tensor, key: Key, choices: int, length: int) -> Tensor:
    """`length` consecutive indices per example, `[batch, length]`, from one of `choices` starting points."""
    size, own = drawn_for(x)
    start = rng.randint(key, (size,), choices, x.device)[own]
    return start[:, None] + torch.arange(length, device=x.device)


def shift(pixels: int) -> View:
    """Images `[batch, channels, height, width]` moved by up to `pixels` each way, the edge repeated."""
    _require_size("shift", pixels)

    def view(x: Tensor, key: Key) -> Tensor:
        _, channels, height, width = x.shape
        row_key, column_key = rng.split(key, 2)
        rows = _window(x, row_key, 2 * pixels + 1, height)
        columns = _window(x, column_key, 2 * pixels + 1, width)
        padded = torch.nn.functional.pad(x, (pixels,) * 4, mode="replicate")
        # Two gathers, since vmap makes one slow index of the same by rows and columns at once.
        tall = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width + 2 * pixels))
        return tall.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))

    return view


def erase(side: int) -> View:
    """A square of `side` pixels set to the batch's mean, its centre anywhere in the image (cutout)."""
    _require_size("erase", side)

    def view(x: Tensor, key: Key) -> Tensor:
        require_whole(x)
        batch, _, height, width = x.shape
        row_key, column_key = rng.split(key, 2)
        rows = rng.randint(row_key, (batch, 1), height, x.device) - torch.arange(height, device=x.device)
        columns = rng.randint(column_key, (batch, 1), width, x.device) - torch.arange(width, device=x.device)
        # The square reaches from (side − 1) // 2 pixels before its centre to side // 2 after it.
        hit_row = (rows <= (side - 1) // 2) & (rows >= -(side // 2))
        hit_column = (columns <= (side - 1) // 2) & (columns >= -(side // 2))
        hit = hit_row[:, None, :, None] & hit_column[:, None, None, :]
        return torch.where(hit, x.mean(), x)

    return view
