"""One's own arrays, in `.npz` and `.npy` files, which are read without pickle: as images or as standardised numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metapl.data.examples import Inputs
from metapl.data.form import Form
from metapl.data.formats import grey, limits, npy
from metapl.data.formats.files import shown
from metapl.data.formats.grey import channels_first
from metapl.data.formats.npy import Arrays
from metapl.data.notes import some
from metapl.registry.errors import InputError

ENDINGS = (".npy", ".npz")
"""The endings of the files that are read here."""

_MORE_X = ("features", "inputs", "train_x", "train_X", "xtrain", "Xtrain", "train_data")
_MORE_Y = ("train_y", "train_Y", "ytrain", "Ytrain", "Y_train", "train_targets")

NAMES: dict[str, tuple[str, ...]] = {
    "x": ("x", "X", "x_train", "X_train", "images", "train_images", "data", *_MORE_X),
    "y": ("y", "Y", "y_train", "labels", "train_labels", "target", "targets", *_MORE_Y),
    "x_test": ("x_test", "X_test", "test_images", "test_x", "test_X", "xtest", "Xtest", "test_data"),
    "y_test": ("y_test", "test_labels", "test_y", "test_Y", "ytest", "Ytest", "test_targets"),
    "x_validation": ("x_validation", "x_val", "X_val", "x_valid", "X_valid", "x_dev", "val_images"),
    "y_validation": ("y_validation", "y_val", "y_valid", "y_dev", "val_labels"),
    "x_unlabelled": ("x_unlabelled", "x_unlabeled", "X_unlabelled", "X_unlabeled", "unlabelled", "unlabeled"),
    "groups": ("groups", "group"),
    "classes": ("classes", "class_names", "target_names"),
    "x_weak": ("x_weak",),
    "x_strong": ("x_strong",),
    "encoder": ("encoder",),
}
"""What each array may be called."""


def load(place: Path) -> Arrays:
    """The arrays of an `.npz` file, or the `.npy` files of a folder, or one `.npy` file as `x`, by their first `NAMES`.

    Arrays of other names are left alone.

    Raises:
        InputError: a file that cannot be read or holds Python objects or more than memory is allowed for, or an array
            under two names.
    """
    return npy.load(place, lambda given: _named(given, place))


def names(place: Path) -> list[str]:
    """The names of the arrays that there are, those that are left alone among them.

    Raises:
        InputError: as `load`.
    """
    found: list[str] = []

    def choose(given: Collection[str]) -> dict[str, str]:
        found.extend(given)
        return {}

    npy.load(place, choose)
    return found


def _named(given: Any, place: Path) -> dict[str, str]:
    """The name under which each array is given."""
    found = {}
    for name, others in NAMES.items():
        present = [one for one in others if one in given]
        if len(present) > 1:
            raise InputError(f"{shown(place)}: {present[0]} and {present[1]} both say what {name} is: leave one out")
        if present:
            found[name] = present[0]
    return found


def is_images(x: np.ndarray) -> bool:
    """Whether an array holds grey levels: uint8, `[images, height, width]` or with channels."""
    return x.dtype == np.uint8 and x.ndim in (3, 4)


def levels(x: np.ndarray, where: str) -> Tensor:
    """Images as uint8 levels `[images, channels, height, width]`.

    Raises:
        InputError: channels that are not 1 or 3, see `channels_first`.
    """
    _require_whole(x, where)
    x = x[:, None] if x.ndim == 3 else channels_first(x)
    if x.shape[1] not in (1, 3):
        raise InputError(
            f"{where}: shape {x.shape} has no dimension of 1 or 3 channels: write [n, height, width, channels], or "
            "float32 for numbers that are no grey levels"
        )
    return torch.from_numpy(np.require(x, requirements=["C", "W"]))


def images(place: Path, scale: grey.Scale | None = None) -> Tensor:
    """The images of an `.npy` or `.npz` file; those of other dtypes than uint8 need to know black and white.

    Raises:
        InputError: no array `x`, or one that holds no images.
    """
    x = _examples(place)
    if scale and x.ndim in (3, 4) and x.dtype.kind in "biuf":
        return grey.levels(numbers(x[:, None] if x.ndim == 3 else x, shown(place)), scale, shown(place))
    if not is_images(x):
        raise InputError(
            f"{shown(place)}: {x.dtype} of shape {x.shape} are no images: give uint8 [n, height, width, channels]"
        )
    return levels(x, shown(place))


def numbers(x: np.ndarray, where: str) -> np.ndarray:
    """Examples as numbers, `[examples, features]` or more dimensions; images with their channels first.

    Raises:
        InputError: anything else than real numbers, numbers that are not finite, or an array without features.
    """
    if x.dtype.kind not in "biuf":
        raise InputError(f"{where}: {x.dtype} are no numbers: give float32, float64, integers or uint8")
    if x.ndim < 2:
        raise InputError(f"{where}: shape {x.shape} is no [examples, features]: reshape it to {(*x.shape, 1)}")
    _require_whole(x, where)
    require_finite(x, where)
    return channels_first(x)


def require_finite(x: np.ndarray, where: str) -> None:
    """Check that examples hold numbers alone.

    Raises:
        InputError: NaN or infinity; it names the first examples that hold some.
    """
    parts = npy.slices(x) if x.dtype.kind == "f" else []
    if bad := [row for part in parts if not np.isfinite(x[part]).all() for row in _not_finite(x, part)]:
        raise InputError(
            f"{where}: holds NaN or infinity, in {len(bad):,} of {len(x):,} examples ({some(bad)}, from 0 on): "
            "fill the gaps or leave these examples out"
        )


def _not_finite(x: np.ndarray, part: slice) -> list[int]:
    finite = np.isfinite(x[part])
    return [part.start + row for row in np.flatnonzero(~finite.reshape(len(finite), -1).all(1)).tolist()]


def _require_whole(x: np.ndarray, where: str) -> None:
    if not math.prod(x.shape[1:]):
        raise InputError(f"{where}: shape {x.shape} has no numbers in an example: give one feature or pixel at least")


def scale(x: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (of the population), float64, by which `standardised` scales.

    Of each feature of `[examples, features]`; of all numbers together where examples have more dimensions, whose
    positions are alike. The deviation of what never changes is 1.

    Raises:
        InputError: numbers so large that float64 has no squares of them.
    """
    axes = 0 if x.ndim == 2 else None
    with np.errstate(over="ignore", invalid="ignore"):
        mean = x.mean(axes, dtype=np.float64)
        squares = sum(np.square(x[part] - mean, dtype=np.float64).sum(axes) for part in npy.slices(x))
        std = np.sqrt(squares / (len(x) if x.ndim == 2 else x.size))
    if not np.isfinite(std).all():
        raise InputError(f"{where}: holds numbers of up to {float(np.abs(x).max()):.3g}: give them in another unit")
    # Not std == 0: rounding leaves a constant 0.1 with a deviation of 1e-17.
    return mean, np.where(x.max(axes) == x.min(axes), 1.0, std)


def standardised(x: np.ndarray, mean: Any, std: Any, where: str = "the array") -> Tensor:
    """(x − mean) / std in float32.

    Raises:
        InputError: numbers so far from the mean that float32 has none of their size.
    """
    made = np.empty(x.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for part in npy.slices(x):  # in float64, which takes much memory for all at once
            made[part] = (x[part] - np.asarray(mean)) / np.asarray(std)
    if not all(np.isfinite(made[part]).all() for part in npy.slices(made)):
        raise InputError(f"{where}: holds numbers beyond reason, far from the mean of the training: correct them")
    return torch.from_numpy(made)


def read(form: Form, places: Sequence[Path]) -> Inputs:
    """Fresh examples in the stored form of a trained run, from the array `x` of `.npy` and `.npz` files and folders.

    The name of each is the path with its number in brackets, as in `x.npy[0]`.

    Raises:
        InputError: examples of another shape, and what `load` and `numbers` refuse.
    """
    names, parts = [], []
    for place in places:
        x = fresh(form, place)
        names += [f"{place}[{number}]" for number in range(len(x))]
        parts.append(standardised(x, form.details["mean"], form.details["std"], shown(place)))
        limits.require(sum(part.nbytes for part in parts), shown(place))
    return Inputs(names, torch.cat(parts))


def fresh(form: Form, place: Path) -> np.ndarray:
    """The examples of one file or folder, of the shape that a run learnt from.

    Raises:
        InputError: as `read`.
    """
    x = numbers(_examples(place), shown(place))
    if x.shape[1:] != tuple(form.shape):
        raise InputError(
            f"{shown(place)}: examples of shape {x.shape[1:]}, but the run learnt from {tuple(form.shape)}: "
            "give arrays of that shape"
        )
    return x


def _examples(place: Path) -> np.ndarray:
    found = load(place)
    if "x" not in found:
        raise InputError(f"{shown(place)}: no array of examples: name it x")
    if found["x"].ndim and len(found["x"]):
        return found["x"]
    raise InputError(f"{shown(place)}: no examples in x: give one at least")
