"""RandAugment as the released code of Meta Pseudo Labels draws it, with Pillow's operations.

Every image draws for itself how likely it is to be changed at all, then, layer after layer, one of fifteen operations
and whether it is applied. The images are grouped by what they drew, so that each passes through one operation a layer;
the sizes of the groups are all that is ever read back from the device, once a call. (Which is why the view cannot
be vectorised by `torch.vmap`, and is called by a compiled step as it is.)

Examples:
    >>> import torch
    >>> from metapl.core import rng
    >>> from metapl.data.augment.randaugment import randaugment
    >>> images = rng.randint(rng.key(0), (8, 3, 32, 32), 256).to(torch.uint8)
    >>> randaugment()(images, rng.key(1)).shape
    torch.Size([8, 3, 32, 32])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key
from metapl.data.augment import operations
from metapl.data.augment.base import View, drawn_for, uncompiled


class Draw(NamedTuple):
    """What an operation may need besides its magnitude, drawn for every image of a batch."""

    sign: Tensor
    """`[batch]`, ±1."""
    centre: Tensor
    """`[batch, 2]`, row and column as fractions of the image."""


Drawn: TypeAlias = Callable[[Tensor, Draw], Tensor]
"""An operation whose magnitude is settled: `drawn(images, draw)`."""


def _plain(operation: Callable[..., Tensor], *magnitude: float) -> Drawn:
    return lambda images, draw: operation(images, *magnitude)  # noqa: ARG005 - every operation gets the draw


def _signed(operation: Callable[[Tensor, Tensor], Tensor], magnitude: float) -> Drawn:
    return lambda images, draw: operation(images, draw.sign * magnitude)


def pool(magnitude: float, translate: float, cutout: float) -> dict[str, Drawn]:
    """The fifteen operations by name; the arguments are those of `randaugment`."""
    level = magnitude / 10.0
    factor = 1.8 * level + 0.1
    half_size = int(cutout * level)
    return {
        "AutoContrast": _plain(operations.autocontrast),
        "Equalize": _plain(operations.equalize),
        "Invert": _plain(operations.invert),
        "Rotate": _signed(operations.rotate, 30.0 * level),
        "Posterize": _plain(operations.posterize, min(max(int(4 * level), 1), 8)),
        "Solarize": _plain(operations.solarize, int(256 * level) % 256),
        "Color": _plain(operations.color, factor),
        "Contrast": _plain(operations.contrast, factor),
        "Brightness": _plain(operations.brightness, factor),
        "Sharpness": _plain(operations.sharpness, factor),
        "ShearX": _signed(operations.shear_x, 0.3 * level),
        "ShearY": _signed(operations.shear_y, 0.3 * level),
        "TranslateX": _signed(operations.translate_x, translate * level),
        "TranslateY": _signed(operations.translate_y, translate * level),
        "Cutout": lambda images, draw: operations.cutout(images, half_size, draw.centre),
    }


def _require(probability: tuple[float, float], **sizes: float) -> None:
    for name, value in sizes.items():
        if value < 0:
            raise ValueError(f"randaugment({name}={value}) must not be negative")
    if not 0 <= probability[0] <= probability[1] <= 1:
        raise ValueError(f"randaugment(probability={probability}) must be a low and a high end within 0 … 1")


def randaugment(
    *,
    magnitude: float = 16.0,
    layers: int = 2,
    translate: float = 4.0,
    cutout: float = 4.0,
    probability: tuple[float, float] = (0.2, 0.8),
) -> View:
    """A view of images `[batch, 1 or 3, height, width]` of grey levels 0 … 255, uint8 or floating-point.

    Each image draws p ~ U(probability) once. Each of its layers draws one of the fifteen operations uniformly and
    applies it with probability p. The magnitude M is fixed, and M / 10 exceeds 1 in both published settings: CIFAR has
    the defaults, ImageNet `magnitude=17, translate=100, cutout=40`.

    | operation | amount | CIFAR | ImageNet |
    | --- | --- | --- | --- |
    | Rotate | ± 30 M/10 degrees | 48 | 51 |
    | ShearX, ShearY | ± 0.3 M/10 | 0.48 | 0.51 |
    | TranslateX, TranslateY | ± translate · M/10 pixels | 6.4 | 170 |
    | Color, Contrast, Brightness, Sharpness | factor 1.8 M/10 + 0.1 | 2.98 | 3.16 |
    | Posterize | int(4 M/10) bits kept, within 1 … 8 | 6 | 6 |
    | Solarize | threshold int(256 M/10) mod 256 | 153 | 179 |
    | Cutout | half the side, int(cutout · M/10) pixels | 6 | 68 |
    | AutoContrast, Equalize, Invert | none | | |

    Solarize's threshold is meant to be compared with uint8 levels and exceeds them as soon as M reaches 10. Taken as it
    stands, the operation would do nothing at all in either setting; stored as uint8 it wraps around. The wrapped
    threshold is kept, as the one that the published numbers were presumably made with. At M = 10 it is 0: an inversion.

    Two likely errors of the released code are *not* copied:

    - its `blend()` mixes images scaled to 0 … 1 but cuts the result to 0 … 255, which cuts nothing off at the upper
      end, so that with a factor above 1 levels past 255 wrap around when they are stored as uint8. Here, they are 255.
    - its Contrast blends with pixels / 256, the mean of the *histogram*, instead of the mean grey level of the image.

    The geometric operations are Pillow's, nearest neighbour, filled with grey 128. The method is that of Cubuk, Zoph,
    Shlens and Le, "RandAugment", NeurIPS 2020.

    Args:
        magnitude: M, on a scale of 10.
        layers: operations drawn for an image, one after another.
        translate: pixels of a translation at M = 10.
        cutout: half the side of the square at M = 10, in pixels.
        probability: the ends of the interval that p is drawn from.

    Raises:
        ValueError: a negative size, or a probability outside 0 … 1.
    """
    _require(probability, magnitude=magnitude, layers=layers, translate=translate, cutout=cutout)
    choices = tuple(pool(magnitude, translate, cutout).values())
    low, high = probability

    def view(x: Tensor, key: Key) -> Tensor:
        p_key, apply_key, operation_key, sign_key, centre_key = rng.split(key, 5)
        size, own = drawn_for(x)
        shape, none = (layers, size), len(choices)
        p = low + (high - low) * rng.uniform(p_key, (size,), device=x.device)
        applied = rng.uniform(apply_key, shape, device=x.device) < p
        choice = torch.where(applied, rng.randint(operation_key, shape, none, x.device), none)[:, own]
        sign = 2 * rng.randint(sign_key, shape, 2, x.device)[:, own] - 1
        centre = rng.uniform(centre_key, (*shape, 2), device=x.device)[:, own]
        order = choice.argsort(1)
        sizes = (choice[..., None] == torch.arange(none + 1, device=x.device)).sum(1).tolist()
        x = x.clone()
        for layer in range(layers):
            *groups, _ = order[layer].split(sizes[layer])
            for operation, group in zip(choices, groups, strict=True):
                if len(group):
                    x[group] = operation(x[group], Draw(sign[layer, group], centre[layer, group]))
        return x

    return uncompiled(view)
