"""Handwritten digits, embedded in scikit-learn."""

from __future__ import annotations

import torch

from metapl.core import rng
from metapl.data.augment import base
from metapl.data.form import Form
from metapl.data.sources.base import Dataset
from metapl.data.split import Wanted, split

TEST = 500
"""Examples of the test part."""


def digits(*, shift: int = 1, noise: float = 0.5, erase: int = 2) -> Dataset:
    """The 1,797 grey 8×8 images of scikit-learn's `load_digits` (UCI Optical Recognition of Handwritten Digits).

    500 class-balanced images, the same for every seed, are the test set; the other 1,297 are the training pool. Pixels
    are scaled to mean 0 and standard deviation 1 over the pool.

    Args:
        shift: pixels by which either view moves an image, each way at most.
        noise: standard deviation of the strong view's Gaussian noise.
        erase: side in pixels of the square that the strong view blanks.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second to import, and only this source needs it

    raw = load_digits()
    x = torch.as_tensor(raw.images, dtype=torch.float32)[:, None] / 16.0
    y = torch.as_tensor(raw.target, dtype=torch.int64)
    names = tuple(str(digit) for digit in range(10))
    wanted = Wanted(labels=TEST, validation=0, labelled_in_unlabelled=False)
    test, pool, _ = split(y, names, wanted, rng.key(0))
    mean, std = x[pool].mean(), x[pool].std()
    x = (x - mean) / std
    views = base.Augment(
        weak=base.shift(shift),
        strong=base.compose(base.shift(shift), base.noise(noise), base.erase(erase)),
    )
    details = {"mean": [mean.item()], "std": [std.item()]}
    form = Form("images", (1, 8, 8), names, details)
    return Dataset(x[pool], y[pool], x[test], y[test], views, form)
