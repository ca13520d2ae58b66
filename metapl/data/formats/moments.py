"""Mean and standard deviation of the grey levels of images."""

from __future__ import annotations

import torch
from torch import Tensor

from metapl.data import progress
from metapl.data.examples import Examples, Joined
from metapl.data.formats import kept
from metapl.data.formats.images import Files, evenly

MEASURED = 5_000
"""The most images that `moments` looks at, of those that are not in memory."""

_CHUNK = 256


def moments(x: Examples) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of images `[images, channels, …]`, in units of white = 1.

    Of all pixels, of uint8 by counting the levels, so that only the last digits of float64 are rounded. Of more than
    5,000 images that are not in memory 5,000 count, evenly spaced: the mean is then off by less than a hundredth of the
    deviation. The deviation is that of the population (a divisor of n), and 1 for a channel of one level, which cannot
    be scaled.
    """
    if isinstance(x, Tensor) and x.is_floating_point():
        return _of_fractions(x)
    level = torch.arange(256, dtype=torch.float64) / 255
    found = _levels(x)
    share = found / found.sum(1, keepdim=True)
    mean = share @ level
    std = (share * (level - mean[:, None]) ** 2).sum(1).sqrt()
    std[(share > 0).sum(1) == 1] = 1.0
    return mean.tolist(), std.tolist()


def _of_fractions(x: Tensor) -> tuple[list[float], list[float]]:
    """Of levels that are not whole: the mean first, then the squares about it."""
    others = [0, *range(2, x.ndim)]
    count = x[:, 0].numel()
    mean = sum((part.double().sum(others) for part in x.split(_CHUNK)), torch.zeros(())) / count
    about = mean.view(-1, *[1] * (x.ndim - 2))
    squares = sum(((part.double() - about).square().sum(others) for part in x.split(_CHUNK)), torch.zeros(()))
    is_constant = x.amin(others) == x.amax(others)
    return (mean / 255).tolist(), torch.where(is_constant, 1.0, (squares / count).sqrt() / 255).tolist()


def _levels(x: Examples) -> Tensor:
    """How many pixels have each level, `[channels, 256]`, float64; where some images count, these stand for all."""
    if isinstance(x, Joined):
        return torch.stack([_levels(part) for part in x.parts if len(part)]).sum(0)
    stored = x.kept if isinstance(x, Files) else ""
    counts = torch.tensor(kept.once(f"{stored}.levels", lambda: _counts(x).tolist())) if stored else _counts(x)
    return counts.double() * (len(x) / len(_places(x)))


def _places(x: Examples) -> Tensor:
    return evenly(len(x), len(x) if isinstance(x, Tensor) else MEASURED)


def _counts(x: Examples) -> Tensor:
    """Of each level, `[channels, 256]`, int64."""
    counts = torch.zeros(x.shape[1], 256, dtype=torch.int64)
    places = _places(x)
    for index in progress.through(places.split(_CHUNK), len(places), "looking at images", len):
        for channel, levels in enumerate(x[index].unbind(1)):
            counts[channel] += torch.bincount(levels.flatten(), minlength=256)
    return counts
