"""An image file as a tensor of grey levels, by Pillow."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from metapl.data.formats import limits
from metapl.data.formats.files import Readable, shown
from metapl.files import storage
from metapl.registry.errors import InputError

_ALWAYS = (".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
_SOMETIMES = {"avif": (".avif",), "jpg_2000": (".jp2", ".j2k")}

HEIC = (".heic", ".heif", ".hif")
"""Of the names of photographs of many telephones, which need the package pillow-heif."""


def _with_heic() -> tuple[str, ...]:
    """These endings, if Pillow can be taught to read such files."""
    try:
        from pillow_heif import register_heif_opener  # noqa: PLC0415 - optional
    except ImportError:
        return ()
    register_heif_opener()
    return HEIC


_BUILT_IN = [ending for name, some in _SOMETIMES.items() if features.check(name) for ending in some]

ENDINGS = (*_ALWAYS, *_BUILT_IN, *_with_heic())
"""Of the names of image files; AVIF and JPEG 2000 where Pillow was built with them, HEIC with pillow-heif."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name for images of so many channels."""
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's names for images without colours."""

WHITE = 2**16 - 1
"""The level of white in files of 16 bits, unless something else is said."""

_FILTERS = threading.Lock()


class Header(NamedTuple):
    """What an image is before it is fitted to anything."""

    height: int
    width: int
    grey: bool
    """Whether the file holds grey levels; an image in colours or with a palette that happens to be grey does not."""
    deep: bool = False
    """Whether its levels have more than 8 bits."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings of big images and odd EXIF, for a moment: all threads share the filters."""
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # first: PNG has its EXIF at the end, and the lock is not for the decoding
    with suppress(Exception), _quiet():  # EXIF can be broken in any way, and the image is none the worse for it
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "unknown format"
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _opened(file: Readable) -> Iterator[Image.Image]:
    """The image in a file, upright; whatever goes wrong with it is bad input."""
    try:
        data = storage.read_bytes(file, limits.most()) if isinstance(file, Path) else file.read_bytes()
    except OSError as error:
        raise InputError(f"{shown(file)}: cannot be read ({error.strerror}): allow it or remove it") from None
    try:
        with _quiet():
            image = Image.open(io.BytesIO(data))
        with image:
            pixels = image.width * image.height
            if pixels > limits.PIXELS:  # by its header: nothing is decoded yet
                raise Image.DecompressionBombError
            with limits.decoding.of(pixels):
                yield _upright(image)
    except Image.DecompressionBombError:
        raise InputError(
            f"{shown(file)}: has more than {limits.PIXELS:,} pixels: make it smaller or remove it"
        ) from None
    except Exception as error:  # a damaged file can make Pillow's many readers fail in any way
        raise InputError(f"{shown(file)}: no image that can be read ({_reason(error)}): remove it") from None


def _high_byte(image: Image.Image, white: int) -> Image.Image:
    """The upper 8 bits of levels up to white, as Pillow takes those of 16 by itself where an image has colours."""
    levels = np.asarray(image)
    if levels.size and not 0 <= levels.min() <= levels.max() < 2**16:
        raise ValueError("its grey levels have more than 16 bits")
    if levels.size and levels.max() > white:
        raise ValueError(f"its level {levels.max()} is beyond white, which is {white}: give white={WHITE}")
    return Image.fromarray((levels >> (white.bit_length() - 8)).astype(np.uint8))


def _opaque(image: Image.Image, white: int) -> Image.Image:
    """An image in 8 bits without transparency: as it looks on white."""
    if image.mode == "F":
        raise ValueError("its grey levels are fractions, and nobody knows which of them is white")
    if image.mode.startswith("I"):
        return _high_byte(image, white)
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def fit(image: Image.Image, shape: Sequence[int], white: int = WHITE) -> Tensor:
    """An image as uint8 levels `[channels, height, width]`, see `decode`.

    Raises:
        ValueError: levels that are not of 8 or 16 bits.
    """
    channels, height, width = shape
    image = _opaque(image, white).convert(MODES[channels])
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).view(height, width, channels).permute(2, 0, 1).contiguous()


def decode(file: Readable, shape: Sequence[int], white: int = WHITE) -> Tensor:
    """An image file as uint8 levels `[channels, height, width]`, white = 255.

    - It is turned as its EXIF says. Of an animation it is the first frame.
    - Transparent parts are as they look on white.
    - Of 16 bits the upper 8 count, of files whose white has fewer the upper 8 of these. Colours become grey by
      ITU-R 601-2 (0.299 R + 0.587 G + 0.114 B), grey becomes three equal channels, and palettes,
      CMYK, YCbCr and HSV become RGB.
    - Where the size is another, the largest part about the centre that has the wanted proportions is scaled to it,
      bicubic with antialiasing: the shorter side fits, and what is too long is cut. Where the size is the same, the
      levels are those in the file.

    Args:
        file: a path, or a member of a shard.
        shape: wanted, 1 or 3 channels.
        white: the level of white in files of 16 bits, 2ⁿ − 1 with n from 8 to 16.

    Raises:
        InputError: a file that is no image, is cut short, or cannot be read.
    """
    with _opened(file) as image:
        return fit(image, shape, white)


def header(file: Readable) -> Header:
    """Size and kind of an image file.

    Raises:
        InputError: as `decode`.
    """
    with _opened(file) as image:
        return Header(image.height, image.width, image.mode in GREY, image.mode.startswith("I"))


def brightest(file: Readable) -> int:
    """The largest grey level in a file.

    Raises:
        InputError: as `decode`.
    """
    with _opened(file) as image:
        return int(np.asarray(image).max(initial=0))


def fitted(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Images `[images, channels, height, width]` that are decoded already, fitted to a shape as `fit` does it.

    Raises:
        InputError: of another dtype than uint8, where the shape is another one.
    """
    if tuple(x.shape[1:]) == tuple(shape):
        return x
    if x.dtype != torch.uint8:
        raise InputError(
            f"images of {x.dtype} and of shape {tuple(x.shape[1:])}, where {tuple(shape)} is wanted: resize them"
        )
    return torch.stack([fit(Image.fromarray(one.permute(1, 2, 0).squeeze(2).numpy()), shape) for one in x])
