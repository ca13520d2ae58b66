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

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

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
    return lambda x, key: x + std * rng.normal(key, x.shape, x.dtype, x.device)


def _window(key: Key, count: int, choices: int, length: int, device: torch.device) -> Tensor:
    """`length` consecutive indices per example, `[count, length]`, from one of `choices` starting points."""
    start = rng.randint(key, (count,), choices, device)
    return start[:, None] + torch.arange(length, device=device)


def shift(pixels: int) -> View:
    """Images `[batch, channels, height, width]` moved by up to `pixels` each way, the edge repeated."""
    _require_size("shift", pixels)

    def view(x: Tensor, key: Key) -> Tensor:
        batch, channels, height, width = x.shape
        row_key, column_key = rng.split(key, 2)
        rows = _window(row_key, batch, 2 * pixels + 1, height, x.device)
        columns = _window(column_key, batch, 2 * pixels + 1, width, x.device)
        padded = torch.nn.functional.pad(x, (pixels,) * 4, mode="replicate")
        # Two gathers, since vmap makes one slow index of the same by rows and columns at once.
        tall = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width + 2 * pixels))
        return tall.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))

    return view


def erase(side: int) -> View:
    """A square of `side` pixels set to the batch's mean, its centre anywhere in the image (cutout)."""
    _require_size("erase", side)

    def view(x: Tensor, key: Key) -> Tensor:
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
