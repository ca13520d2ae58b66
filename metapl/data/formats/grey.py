"""Grey levels in any dtype: which arrays are images, and what their black and white are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metapl.data.formats.npy import slices
from metapl.registry.errors import InputError

WHITES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
"""The level of white of whole levels, by the bits that they have."""

SIDE, OBLONG = 5, 4
"""Of `[n, height, width]` that is no uint8: the least side of an image, and how many times as long the other may be."""


class Scale(NamedTuple):
    """What black and white are in an array; levels are 255 · (value − black) / (white − black)."""

    black: float
    white: float


BYTES = Scale(0.0, 255.0)
"""That of uint8."""


def channels_first(x: np.ndarray) -> np.ndarray:
    """Arrays of 4 dimensions with the channels second; others as they are.

    Where the second dimension is 1 or 3, it is the channels already; else it is the last one, if that is 1 or 3. So
    images of one or of three rows must be given with their channels first.
    """
    return np.moveaxis(x, 3, 1) if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3) else x


def scale_of(*arrays: np.ndarray) -> Scale | None:
    """Black and white of arrays of images, which are alike but for their number; None for other numbers.

    - uint8 of 3 dimensions `[n, height, width]` or of 4 is images from 0 to 255.
    - Any real numbers of 4 dimensions are images if 1 or 3 of them are channels. So are those of 3 dimensions if none
      is negative, all are whole or at most 1, and examples are about as high as wide.
    - White is 1 where nothing exceeds it, else the largest level of 8, 10, 12, 14 or 16 bits that holds all. Where
      numbers are negative or fractions, black and white are the least and the largest, unless 255 is white.
    """
    x = arrays[0]
    if x.ndim not in (3, 4) or not x.size:
        return None
    if x.dtype == np.uint8:
        return BYTES
    if any(one.dtype.kind not in "biuf" for one in arrays) or (
        x.ndim == 4 and channels_first(x).shape[1] not in (1, 3)
    ):
        return None
    low, high = float(min(one.min() for one in arrays)), float(max(one.max() for one in arrays))
    if not np.isfinite([low, high]).all() or low == high:
        return None
    whole = all(_is_whole(one) for one in arrays)
    if x.ndim == 3:
        height, width = x.shape[1:]
        if (
            low < 0
            or not (whole or high <= 1)
            or min(height, width) < SIDE
            or max(height, width) > OBLONG * min(height, width)
        ):
            return None
    return _scale(low, high, whole)


def _is_whole(x: np.ndarray) -> bool:
    return x.dtype.kind != "f" or all(bool((x[part] == np.round(x[part])).all()) for part in slices(x))


def _scale(low: float, high: float, whole: bool) -> Scale:
    if low >= 0 and high <= 1:
        return Scale(0.0, 1.0)
    white = next((white for white in WHITES if high <= white), high)
    if low < 0 or not (whole or 128 <= high <= 255):
        return Scale(min(low, 0.0), high)
    return Scale(0.0, float(white))


def levels(x: np.ndarray, scale: Scale, where: str) -> Tensor:
    """Images `[images, channels, height, width]` as grey levels, 255 for white: uint8 where that loses nothing.

    They are float32 otherwise, so that nothing is rounded to 8 bits. uint8 stays as it is, whatever the scale.

    Raises:
        InputError: levels far beyond black and white, of images of another kind than those the scale is of.
    """
    x = x[:, None] if x.ndim == 3 else channels_first(x)
    if x.dtype == np.uint8:
        return torch.from_numpy(np.require(x, requirements=["C", "W"]))
    found = _filled(x, scale, where, np.empty(x.shape, np.uint8))
    return torch.from_numpy(_filled(x, scale, where, np.empty(x.shape, np.float32)) if found is None else found)


def _filled(x: np.ndarray, scale: Scale, where: str, made: np.ndarray) -> np.ndarray | None:
    """The levels in an array of their shape; None as soon as its dtype would lose something."""
    span = scale.white - scale.black
    rounded = float(np.finfo(x.dtype).eps) if x.dtype.kind == "f" else 1e-9
    for place in slices(x):
        part = x[place]
        found = 255.0 * (part.astype(np.float64) - scale.black) / span
        if not -255 <= found.min() <= found.max() <= 510:
            raise InputError(
                f"{where}: values from {part.min():.6g} to {part.max():.6g}, where black is {scale.black:.6g} and "
                f"white {scale.white:.6g}: scale them as those of the training"
            )
        if made.dtype == np.uint8:
            found = np.round(found).clip(0, 255)
            back = found / 255.0 * span + scale.black
            if not (np.abs(back - part) <= rounded * max(abs(scale.white), abs(scale.black))).all():
                return None
        made[place] = found
    return made
