"""Views that flip, crop and cut images, drawn anew for every image on the batch's device, and their normalisation.

Images are `[batch, channels, height, width]` of grey levels 0 … 255. uint8 in gives uint8 out, floating-point the same
floating-point. `normalise` comes last, between the views and the network.

Examples:
    The strong view of CIFAR in Meta Pseudo Labels.

    >>> import torch
    >>> from metapl.core import rng
    >>> from metapl.data.augment import crops
    >>> from metapl.data.augment.base import compose
    >>> from metapl.data.augment.randaugment import randaugment
    >>> weak = compose(crops.flip(), crops.pad_crop(4))
    >>> strong = compose(weak, randaugment(), crops.cutout(8), weak)
    >>> images = rng.randint(rng.key(0), (8, 3, 32, 32), 256).to(torch.uint8)
    >>> scaled = crops.normalise((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    >>> scaled(strong(images, rng.key(1))).shape
    torch.Size([8, 3, 32, 32])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.core import rng
from metapl.core.types import Key
from metapl.data.augment import operations
from metapl.data.augment.base import View, drawn_for

TRIES = 10
"""Boxes that `random_boxes` draws for an image before it takes the central one."""


def _require_size(view: str, size: int, least: int = 0) -> None:
    if size < least:
        raise ValueError(f"{view}({size}) must be at least {least}")


def flip() -> View:
    """Left and right exchanged, for each image with probability one half."""

    def view(x: Tensor, key: Key) -> Tensor:
        size, own = drawn_for(x)
        flipped = rng.randint(key, (size, 1, 1, 1), 2, x.device)[own] == 1
        return torch.where(flipped, x.flip(-1), x)

    return view


def pad_crop(pixels: int, fill: int = operations.FILL) -> View:
    """A window of the image's size from the image padded with `pixels` of the grey level `fill` all around.

    Every one of the (2 `pixels` + 1)² windows is equally likely.
    """
    _require_size("pad_crop", pixels)

    def view(x: Tensor, key: Key) -> Tensor:
        size, own = drawn_for(x)
        right, down = (rng.randint(key, (2, size), 2 * pixels + 1, x.device)[:, own] - pixels).unbind()
        return operations.affine(x, (1.0, 0.0, right, 0.0, 1.0, down), fill)

    return view


def cutout(half_size: int, fill: int = operations.FILL) -> View:
    """A square of side 2 · `half_size` filled with grey, its centre anywhere in the image, cut at the edges.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", arXiv 1708.04552.
    """
    _require_size("cutout", half_size)

    def view(x: Tensor, key: Key) -> Tensor:
        size, own = drawn_for(x)
        return operations.cutout(x, half_size, rng.uniform(key, (size, 2), device=x.device)[own], fill)

    return view


class Boxes(NamedTuple):
    """Parts of images, in whole pixels, `[batch]` each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def random_boxes(
    key: Key, images: Tensor, area: tuple[float, float] = (0.08, 1.0), aspect: tuple[float, float] = (3 / 4, 4 / 3)
) -> Boxes:
    """One box for every image, as Inception and its successors draw it.

    A share of the area, uniform in `area`, and the logarithm of width / height, uniform in that of `aspect`; then the
    place, uniform where it fits. Boxes larger than the image are rejected. All of the `TRIES` are drawn at once, and
    the first that fits is taken; where none does, the largest central box of an allowed aspect, as is usual.

    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
    """
    (_, _, height, width), device = images.shape, images.device
    count, own = drawn_for(images)
    area_key, aspect_key, place_key = rng.split(key, 3)
    shares = area[0] + (area[1] - area[0]) * rng.uniform(area_key, (count, TRIES), device=device)[own]
    low, high = map(math.log, aspect)
    root = (low / 2 + (high - low) / 2 * rng.uniform(aspect_key, (count, TRIES), device=device)[own]).exp()
    side = (shares * height * width).sqrt()
    heights, widths = (side / root).round(), (side * root).round()
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)  # of equal ones, argmax gives the first
    ratio = min(max(width / height, aspect[0]), aspect[1])
    found = fits.any(1)

    def settled(tries: Tensor, central: int, size: int, place: Tensor) -> tuple[Tensor, Tensor]:
        length = torch.where(found, tries.gather(1, first)[:, 0], max(min(central, size), 1))
        free = size - length
        return torch.where(found, torch.floor(place * (free + 1)), torch.floor(free / 2)), length

    down, right = rng.uniform(place_key, (2, count), device=device)[:, own]
    top, box_height = settled(heights, round(width / ratio), height, down)
    left, box_width = settled(widths, round(height * ratio), width, right)
    return Boxes(top, left, box_height, box_width)


def resized_crop(images: Tensor, boxes: Boxes, size: int) -> Tensor:
    """A part of every image, `[batch, channels, size, size]`, bilinear without antialiasing; uint8 is rounded.

    The box's edge is repeated, so that nothing outside a box shows: what cropping first and resizing then gives.
    """

    def positions(start: Tensor, length: Tensor, whole: int) -> Tensor:
        """`[batch, size]` in the units of `grid_sample`: −1 and 1 are the outer edges of the image."""
        start, length = start[:, None], length[:, None]
        inside = (torch.arange(size, device=images.device) + 0.5) * length / size - 0.5
        return (2 * (start + inside.clamp(min=0).minimum(length - 1)) + 1) / whole - 1

    dtype = torch.promote_types(images.dtype, torch.float32)
    y = positions(boxes.top.to(dtype), boxes.height.to(dtype), images.shape[2])[:, :, None].expand(-1, -1, size)
    x = positions(boxes.left.to(dtype), boxes.width.to(dtype), images.shape[3])[:, None, :].expand(-1, size, -1)
    grid = torch.stack((x, y), dim=-1)
    sampled = F.grid_sample(images.to(dtype), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return (sampled if images.is_floating_point() else sampled.round().clamp(0, 255)).to(images.dtype)


def random_resized_crop(
    size: int, area: tuple[float, float] = (0.08, 1.0), aspect: tuple[float, float] = (3 / 4, 4 / 3)
) -> View:
    """A random part of every image, `[batch, channels, size, size]`: `resized_crop` of `random_boxes`.

    Args:
        size: pixels, in height and width.
        area: the ends of the interval of the box's share of the image.
        aspect: the ends of the interval of the box's width / height.

    Raises:
        ValueError: no pixels, or ends that are not positive and in order.
    """
    _require_size("random_resized_crop", size, least=1)
    for name, (low, high), most in (("area", area, 1.0), ("aspect", aspect, math.inf)):
        if not 0 < low <= high <= most:
            raise ValueError(f"random_resized_crop({name}=({low}, {high})) must be positive, in order, at most {most}")
    return lambda x, key: resized_crop(x, random_boxes(key, x, area, aspect), size)


def normalise(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    """Grey levels `[batch, channels, ...]` to float32 (level / 255 − mean) / std, channel by channel.

    Raises:
        ValueError: not one mean and one positive standard deviation for every channel.
    """
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise ValueError(f"normalise({mean}, {std}) needs a mean and a positive standard deviation for every channel")

    def normalised(x: Tensor) -> Tensor:
        if x.shape[1] != len(mean):
            raise ValueError(f"normalise() of {len(mean)} channels was given images of {x.shape[1]}: {tuple(x.shape)}")
        shape = (-1, *(1,) * (x.ndim - 2))
        centre, scale = (torch.tensor(values, device=x.device).reshape(shape) for values in (mean, std))
        return (x.to(torch.float32) / 255.0 - centre) / scale

    return normalised
