"""What the published image sets share: checked labels, and the data set made of images and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from metapl.data.augment import presets
from metapl.data.form import Form
from metapl.data.formats.moments import moments
from metapl.data.sources.base import Dataset
from metapl.registry.errors import InputError

Moments: TypeAlias = tuple[list[float], list[float]]
"""Mean and standard deviation of each channel, in units of white = 1."""


class Part(NamedTuple):
    """The training pool or the test set as its files have it."""

    x: np.ndarray
    """Grey levels `[examples, channels, height, width]`, uint8."""
    y: np.ndarray
    """Class indices `[examples]`."""


def labels(y: np.ndarray, classes: Sequence[int], count: int, path: Path, remedy: str) -> np.ndarray:
    """Class indices, int64, of labels as a file has them.

    Args:
        y: labels, one for each image.
        classes: the label of each class, ascending.
        count: how many images there are.
        path: the file, for errors.
        remedy: what to do, for errors.

    Raises:
        InputError: no images, another number of labels, or a label that is not among the classes.
    """
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise InputError(f"{path} has labels that are no list of whole numbers: {remedy}")
    if len(y) != count:
        raise InputError(f"{path} has {len(y)} labels for {count} images: {remedy}")
    if not count:
        raise InputError(f"{path} has no images: {remedy}")
    wrong = np.flatnonzero(~np.isin(y, classes))
    if len(wrong):
        known = f"{classes[0]} to {classes[-1]}" if len(classes) > 1 else f"{classes[0]}"
        raise InputError(f"{path} has the label {y[wrong[0]]} at image {wrong[0]}, where labels are {known}: {remedy}")
    return np.searchsorted(np.asarray(classes), y).astype(np.int64)


def dataset(train: Part, test: Part, classes: Sequence[str], known: Moments | None = None, **details: Any) -> Dataset:
    """The data set of two parts, with statistics of the training pool unless there are known ones.

    Args:
        train: the training pool.
        test: the test set.
        classes: their names.
        known: statistics that are used in place of those of the pool.
        details: more of `Form.details`.
    """
    x, x_test = (torch.from_numpy(np.require(part.x, requirements=["C", "W"])) for part in (train, test))
    mean, std = known or moments(x)
    form = Form("images", tuple(x.shape[1:]), tuple(classes), {"mean": list(mean), "std": list(std), **details})
    return Dataset(x, torch.from_numpy(train.y), x_test, torch.from_numpy(test.y), presets.default(form), form)
