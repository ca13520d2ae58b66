"""The image operations of RandAugment, each on a whole batch, each image with an amount of its own.

Images are `[batch, channels, height, width]` of 1 or 3 channels that hold grey levels 0 … 255, as uint8 or as
floating-point numbers; what comes back has the same dtype. An amount is a number for all images or a tensor
`[batch]` on their device. What an operation does to 8-bit images is what Pillow does, its rounding included.

There are three ideas:

- *levels*: a new level for every pixel, from its own level and from what its image holds (its extremes, its
  histogram). They are defined on whole levels, so floating-point images are rounded to them first.
- *blends*: a line through a degenerate image (grey, flat, black or smoothed) and the image, followed beyond it where
  the factor exceeds 1: degenerate + factor · (image − degenerate), cut to 0 … 255 and truncated.
- *moves*: an affine map tells every pixel where to look, nearest neighbour; what looks past the edge sees `FILL`.

`cutout` fills a square. Nothing here is random.

Examples:
    >>> import torch
    >>> from metapl.data.augment import operations
    >>> images = torch.tensor([0, 100, 200], dtype=torch.uint8).expand(2, 1, 1, 3)
    >>> operations.translate_x(images, torch.tensor([1.0, -1.0]))[:, 0, 0].tolist()
    [[100, 200, 128], [128, 0, 100]]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

Amount: TypeAlias = float | Tensor
"""A number for all images, or one for each, `[batch]`."""

Coefficients: TypeAlias = tuple[Amount, Amount, Amount, Amount, Amount, Amount]
"""a, b, c, d, e, f: the pixel at (x, y) looks at (ax + by + c, dx + ey + f), in pixels from the upper left corner."""

FILL = 128
"""The grey level of what was outside the image."""

P = ParamSpec("P")


def _each(amount: Amount, images: Tensor, dtype: torch.dtype) -> Tensor:
    """An amount that broadcasts over images: `[batch or 1, 1, 1, 1]`."""
    return torch.as_tensor(amount, dtype=dtype, device=images.device).reshape(-1, 1, 1, 1)


def _of_levels(operation: Callable[Concatenate[Tensor, P], Tensor]) -> Callable[Concatenate[Tensor, P], Tensor]:
    """The operation on uint8, for floating-point images too."""

    @wraps(operation)
    def on_levels(images: Tensor, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        if images.dtype == torch.uint8:
            return operation(images, *args, **kwargs)
        levels = images.round().clamp(0, 255).to(torch.uint8)
        return operation(levels, *args, **kwargs).to(images.dtype)

    return on_levels


# ---------------------------------------------------------------- levels


@_of_levels
def autocontrast(images: Tensor) -> Tensor:
    """Every channel stretched so that its darkest pixel is 0 and its lightest 255; a constant channel as it is."""
    low, high = (bound((2, 3), keepdim=True).double() for bound in (images.amin, images.amax))
    scale = torch.full_like(high, 255.0) / (high - low).clamp(min=1.0)  # number / tensor would be rounded twice
    stretched = (images * scale + -low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


@_of_levels
def equalize(images: Tensor) -> Tensor:
    """Every channel with its histogram flattened: level i becomes (step // 2 + pixels below i) // step.

    step = (pixels − pixels at the highest level) // 255; a channel where it is 0 stays as it is.
    """
    levels = images.flatten(2).long()
    batch, channels, pixels = levels.shape
    counts = levels.new_zeros(batch, channels, 256).scatter_add(2, levels, torch.ones_like(levels))
    step = (pixels - counts.gather(2, levels.amax(2, keepdim=True))) // 255
    below = counts.cumsum(2) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.to(torch.uint8).gather(2, levels).reshape(images.shape)


@_of_levels
def invert(images: Tensor) -> Tensor:
    """255 − level."""
    return 255 - images


@_of_levels
def posterize(images: Tensor, bits: Amount) -> Tensor:
    """The highest `bits` bits of every level, 0 … 8; the others are 0."""
    return images & ((255 << (8 - _each(bits, images, torch.int64))) & 255).to(torch.uint8)


@_of_levels
def solarize(images: Tensor, threshold: Amount) -> Tensor:
    """Levels from `threshold` on inverted."""
    return torch.where(images < _each(threshold, images, torch.float32), images, 255 - images)


# ---------------------------------------------------------------- blends


def _grey(images: Tensor) -> Tensor:
    """Luminance `[batch, 1, height, width]`, uint8."""
    channels = images.shape[1]
    if channels == 1:
        return images
    if channels != 3:
        raise ValueError(f"images of {channels} channels have no grey level: give [batch, 1 or 3, height, width]")
    red, green, blue = images.int().unbind(1)
    # ITU-R 601-2 in units of 2⁻¹⁶, rounded.
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).to(torch.uint8)[:, None]


def _blend(degenerate: Tensor | float, images: Tensor, factor: Amount) -> Tensor:
    mixed = degenerate + _each(factor, images, torch.float32) * (images.float() - degenerate)
    return mixed.clamp(0, 255).to(torch.uint8)


@_of_levels
def color(images: Tensor, factor: Amount) -> Tensor:
    """Away from grey: 0 takes the colour out, 1 is the identity, and so is everything for images of one channel."""
    return _blend(_grey(images).float(), images, factor)


@_of_levels
def contrast(images: Tensor, factor: Amount) -> Tensor:
    """Away from the image's mean grey level, rounded: 0 leaves that level alone, 1 is the identity."""
    pixels = images.shape[2] * images.shape[3]
    total = _grey(images).sum((1, 2, 3), keepdim=True, dtype=torch.int64)
    return _blend(((2 * total + pixels) // (2 * pixels)).float(), images, factor)


@_of_levels
def brightness(images: Tensor, factor: Amount) -> Tensor:
    """Away from black: 0 is black, 1 is the identity."""
    return _blend(0.0, images, factor)


@_of_levels
def sharpness(images: Tensor, factor: Amount) -> Tensor:
    """Away from the smoothed image: 0 is smooth, 1 is the identity; the outermost pixels stay as they are.

    Smooth is (4 · level + the sum over 3 × 3 levels) / 13, rounded.
    """
    levels = images.to(torch.int16)
    rows = levels[..., :-2, :] + levels[..., 1:-1, :] + levels[..., 2:, :]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * levels[..., 1:-1, 1:-1]
    smooth = images.float()
    smooth[..., 1:-1, 1:-1] = ((2 * total + 13) // 26).float()
    return _blend(smooth, images, factor)


# ---------------------------------------------------------------- moves


def affine(images: Tensor, coefficients: Coefficients, fill: int = FILL) -> Tensor:
    """Every pixel becomes the one that its centre is mapped to, or `fill` where that is outside the image.

    In 16.16 fixed point, as Pillow computes it: exact and the same on every device, up to 2⁻¹⁶ pixels a row and column.
    """

    def fixed(value: Tensor) -> Tensor:
        return torch.floor(65536.0 * value + 0.5).to(torch.int64)

    def source(slope_x: Tensor, slope_y: Tensor, start: Tensor, size: int) -> Tensor:
        """Indices into `size` pixels with one of `fill` on either side."""
        start = start + slope_x / 2 + slope_y / 2
        return ((fixed(slope_x) * x + fixed(slope_y) * y + fixed(start)) >> 16).clamp(-1, size) + 1

    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)[:, None]
    a, b, c, d, e, f = (_each(value, images, torch.float64) for value in coefficients)
    index = (source(d, e, f, height) * (width + 2) + source(a, b, c, width)).flatten(2)
    padded = F.pad(images, (1, 1, 1, 1), value=fill).flatten(2)
    return padded.gather(2, index.expand(*padded.shape[:2], -1)).reshape(images.shape)


def rotate(images: Tensor, degrees: Amount) -> Tensor:
    """Counter-clockwise about the centre."""
    angle = torch.deg2rad(_each(degrees, images, torch.float64))
    cosine, sine = angle.cos(), angle.sin()
    x, y = images.shape[3] / 2, images.shape[2] / 2
    return affine(images, (cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y))


def shear_x(images: Tensor, slope: Amount) -> Tensor:
    """Row y shows what is `slope` · y pixels further right."""
    return affine(images, (1.0, slope, 0.0, 0.0, 1.0, 0.0))


def shear_y(images: Tensor, slope: Amount) -> Tensor:
    """Column x shows what is `slope` · x pixels further down."""
    return affine(images, (1.0, 0.0, 0.0, slope, 1.0, 0.0))


def translate_x(images: Tensor, pixels: Amount) -> Tensor:
    """Every pixel shows what is `pixels` further right."""
    return affine(images, (1.0, 0.0, pixels, 0.0, 1.0, 0.0))


def translate_y(images: Tensor, pixels: Amount) -> Tensor:
    """Every pixel shows what is `pixels` further down."""
    return affine(images, (1.0, 0.0, 0.0, 0.0, 1.0, pixels))


# ---------------------------------------------------------------- cutout


def cutout(images: Tensor, half_size: Amount, centre: Tensor, fill: int = FILL) -> Tensor:
    """A square filled, cut at the edges: `half_size` pixels before its centre, the centre, `half_size` − 1 after it.

    Args:
        images: grey levels `[batch, channels, height, width]`.
        half_size: half the side, in whole pixels.
        centre: `[batch, 2]`, row and column as fractions of height and width, in [0, 1).
        fill: grey level of the square.
    """
    half = _each(half_size, images, torch.float32)

    def hit(size: int, fraction: Tensor) -> Tensor:
        offset = torch.arange(size, device=images.device) - torch.floor(fraction * size)[:, None, None, None]
        return (offset >= -half) & (offset < half)

    row, column = centre.unbind(1)
    return images.masked_fill(hit(images.shape[2], row).mT & hit(images.shape[3], column), fill)
