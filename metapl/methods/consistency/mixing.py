"""Mixing the strong views of a batch with each other, and their targets in the same shares, for `--mixing`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key
from metapl.registry.errors import InputError


class Mixed(NamedTuple):
    """What was mixed with what."""

    partner: Tensor
    """The position in the batch of the other example, `[batch]`, int64."""
    share: Tensor
    """The share of the example itself, `[batch]`; that of the other is the rest."""

    def of(self, values: Tensor) -> Tensor:
        """share · values + (1 − share) · values of the partners, for `[batch, ...]`."""
        share = self.share.to(values).reshape(-1, *[1] * (values.ndim - 1))
        return share * values + (1.0 - share) * values[self.partner]


Mixing: TypeAlias = Callable[[Tensor, Key], tuple[Tensor, Mixed | None]]
"""`mixing(x, key)`: mixed inputs `[batch, ...]`, and what is in them; None where they are as they were.

The key is that of the views: a rule that draws folds it with `DRAWS` first.
"""

DRAWS = 1000
"""See `Mixing`; the views take the first few. A key is folded where it is used only, since that takes time."""

POINTS = 1024
"""Pieces of the distribution of the shares, which is linear between them."""


def none() -> Mixing:
    """The strong views as they are."""
    return lambda x, key: (x, None)  # noqa: ARG005


def mixup(*, alpha: float = 0.75) -> Mixing:
    """λ x_i + (1 − λ) x_j, with λ ~ Beta(alpha, alpha) for each example and j a random other place of the batch.

    For vectors and images. Source: Zhang et al., *mixup*, ICLR 2018; `alpha` as in MixMatch (Berthelot et al., NeurIPS
    2019).

    Raises:
        ValueError: `alpha` is not positive.
    """
    draw = _shares(alpha)

    def mix(x: Tensor, key: Key) -> tuple[Tensor, Mixed]:
        partner_key, share_key = rng.split(rng.fold_in(key, DRAWS), 2)
        mixed = Mixed(rng.permutation(partner_key, len(x), x.device), draw(share_key, x))
        return mixed.of(x), mixed

    return mix


def cutmix(*, alpha: float = 1.0) -> Mixing:
    """A box of x_j in x_i, of an area of 1 − λ before it is cut at the border, with λ ~ Beta(alpha, alpha).

    For images; the share is that of the pixels. Source: Yun et al., *CutMix*, ICCV 2019.

    Raises:
        ValueError: `alpha` is not positive.
        InputError: examples that are no images, when they are mixed.
    """
    draw = _shares(alpha)

    def mix(x: Tensor, key: Key) -> tuple[Tensor, Mixed]:
        if x.ndim != 4:
            raise InputError("mixing = cutmix is for images: take mixup, which is for vectors too", "mixing")
        partner_key, share_key, row_key, column_key = rng.split(rng.fold_in(key, DRAWS), 4)
        partner = rng.permutation(partner_key, len(x), x.device)
        side = (1.0 - draw(share_key, x)).sqrt()
        rows, columns = (
            _inside(size, side, rng.uniform(place_key, (len(x),), x.dtype, x.device))
            for size, place_key in zip(x.shape[-2:], (row_key, column_key), strict=True)
        )
        box = rows[:, :, None] & columns[:, None, :]
        share = 1.0 - box.to(x.dtype).mean(dim=(1, 2))
        return torch.where(box[:, None], x[partner], x), Mixed(partner, share)

    return mix


def _inside(size: int, side: Tensor, middle: Tensor) -> Tensor:
    """Which of so many pixels are in an interval of a share of them around a place in (0, 1), `[batch, size]`."""
    pixel = torch.arange(size, device=side.device)
    low, high = ((middle + sign * side / 2.0)[:, None] * size for sign in (-1.0, 1.0))
    return (pixel + 0.5 > low) & (pixel + 0.5 < high)


def _shares(alpha: float) -> Callable[[Key, Tensor], Tensor]:
    """Draws from Beta(alpha, alpha), one an example, by the inverse of its distribution function."""
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f"alpha={alpha} must be positive")
    quantiles = torch.from_numpy(stats.beta.ppf(np.linspace(0.0, 1.0, POINTS + 1), alpha, alpha))

    def draw(key: Key, x: Tensor) -> Tensor:
        known = quantiles.to(x)
        place = rng.uniform(key, (len(x),), x.dtype, x.device) * POINTS
        below = place.floor().clamp(max=POINTS - 1).to(torch.int64)
        return torch.lerp(known[below], known[below + 1], place - below)

    return draw


MIXINGS: dict[str, Callable[..., Mixing]] = {"none": none, "mixup": mixup, "cutmix": cutmix}
"""The ways by name, for `--mixing NAME:key=value,…`."""
