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
        levels = x.transpose(0, 1).flatten(1).double() / 255
        std = levels.std(1, correction=0)
        return levels.mean(1).tolist(), torch.where(levels.amin(1) == levels.amax(1), 1.0, std).tolist()
    level = torch.arange(256, dtype=torch.float64) / 255
    share = _shares(x)
    mean = share @ level
    std = (share * (level - mean[:, None]) ** 2).sum(1).sqrt()
    std[(share > 0).sum(1) == 1] = 1.0
    return mean.tolist(), std.tolist()


def _shares(x: Examples) -> Tensor:
    """Of each level among all, `[channels, 256]`, float64; parts count by their images."""
    if isinstance(x, Joined):
        return sum((len(part) * _shares(part) for part in x.parts), torch.zeros(())) / len(x)
    stored = x.kept if isinstance(x, Files) else ""
    counts = torch.tensor(kept.once(f"{stored}.levels", lambda: _counts(x).tolist())) if stored else _counts(x)
    return counts.double() / counts.sum(1, keepdim=True)


def _counts(x: Examples) -> Tensor:
    """Of each level, `[channels, 256]`, int64."""
    counts = torch.zeros(x.shape[1], 256, dtype=torch.int64)
    places = evenly(len(x), len(x) if isinstance(x, Tensor) else MEASURED)
    for index in progress.through(places.split(_CHUNK), len(places), "looking at images", len):
        for channel, levels in enumerate(x[index].unbind(1)):
            counts[channel] += torch.bincount(levels.flatten(), minlength=256)
    return counts
