"""One's own arrays, as numpy saves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metapl.core import rng
from metapl.data.augment import presets
from metapl.data.form import Form
from metapl.data.formats import arrays as saved
from metapl.data.formats import limits
from metapl.data.formats.files import shown
from metapl.data.sources import embedded, pools
from metapl.data.sources.base import Dataset
from metapl.data.sources.held_out import hold_out
from metapl.registry.errors import InputError

UNKNOWN = (-1, "")
"""Labels of examples whose class nobody knows; NaN becomes the first."""


def is_arrays(place: Path) -> bool:
    """Whether a place is an `.npz` file, or a folder with `x.npy` or another of its names."""
    if place.is_file():
        return place.suffix.lower() == ".npz"
    return any((place / f"{name}.npy").is_file() for name in saved.NAMES["x"])


def arrays(place: Path, *, test: float = 0.2, scale: str = "auto") -> Dataset:
    """An `.npz` file with `x` and `y`, or a folder with `x.npy` and `y.npy`; see `metapl.data.formats.arrays.NAMES`.

    `x_test` and `y_test` are the test set; without them a share of every class is held out. `x_unlabelled` follows the
    labelled examples in the training pool. Everything is in memory.

    - uint8 of 3 dimensions `[n, height, width]`, or of 4, see `metapl.data.formats.arrays.channels_first`, are images.
    - Features of a network, see `metapl.data.formats.features.recognise`, are divided by their length. The weak and the
      strong view of training are drawn from `x_weak` and `x_strong`, `[views, n, features]`, where these are there.
    - All else is numbers, kept as float32 and standardised by the training pool, see
      `metapl.data.formats.arrays.scale`. So are images with levels from 0 to 1: rounding them to 8 bits might lose
      something.

    Labels `y` are integers or texts; −1, NaN and the empty text are of examples whose class nobody knows. If `classes`
    names the classes, integers are indices into it and texts are in it; else the classes are the labels that there are,
    sorted. One column `[n, 1]` will do.

    Args:
        place: the file or folder.
        test: share of every class that is held out, the same for every seed, unless there is `x_test`.
        scale: of vectors: unit divides each by its length, standard brings each number to mean 0 and deviation 1, none
            leaves them; auto is unit for features and standard for other numbers.

    Raises:
        InputError: arrays that are not there, cannot be read or do not fit together, labels that are none, a scale that
            is unknown or for what are no vectors.
    """
    found, where = saved.load(place), shown(place)
    _require_whole(found, where)
    names, values = _classes(found, where)
    y = _indices(found["y"], values, f"{where}: y")
    because = embedded.wanted(found, scale, where)
    if because:
        found = {**found, "x": embedded.stored(found, where)}
    pool, held_out = _parts(found, y, values, test, where)
    if saved.is_images(pool[0]):
        images, kept = (pools.Part(saved.levels(x, where), y) for x, y in (pool, held_out))
        return pools.of_images(images, kept, names)
    if because:
        return embedded.dataset(pool, held_out, embedded.form(pool[0], names, scale, because, where), found)
    (x, y), (x_test, y_test) = pool, held_out
    return _of_numbers((saved.numbers(x, where), y), (saved.numbers(x_test, where), y_test), names, where)


def _parts(
    found: saved.Arrays, y: Tensor, values: Sequence[int | str], test: float, where: str
) -> tuple[tuple[np.ndarray, Tensor], tuple[np.ndarray, Tensor]]:
    """The training pool and the test part, each as examples and their class indices."""
    x, more = found["x"], found.get("x_unlabelled", found["x"][:0])
    if "x_test" in found:
        x_test, y_test = found["x_test"], _indices(found["y_test"], values, f"{where}: y_test")
        if (y_test < 0).any():
            raise InputError(f"{where}: y_test has labels that nobody knows: leave these examples out")
    else:
        pool, held = hold_out(y, test, rng.key(0))
        x, x_test, y, y_test = x[pool.numpy()], x[held.numpy()], y[pool], y[held]
    x = np.concatenate([x, more])
    return (x, torch.cat([y, torch.full((len(more),), -1)])), (x_test, y_test)


def _of_numbers(
    pool: tuple[np.ndarray, Tensor], test: tuple[np.ndarray, Tensor], classes: Sequence[str], where: str
) -> Dataset:
    (x, y), (x_test, y_test) = pool, test
    mean, std = saved.scale(x, where)
    form = Form("arrays", x.shape[1:], tuple(classes), {"mean": mean.tolist(), "std": std.tolist()})
    scaled, scaled_test = (saved.standardised(part, mean, std, where) for part in (x, x_test))
    return Dataset(scaled, y, scaled_test, y_test, presets.default(form), form)


def _require_whole(found: saved.Arrays, where: str) -> None:
    """Check that all arrays are there and fit together."""
    for name in ("x", "y"):
        if name not in found:
            raise InputError(f"{where}: no array {name}: call it {' or '.join(saved.NAMES[name])}")
    if ("x_test" in found) != ("y_test" in found):
        raise InputError(f"{where}: x_test and y_test must be there both or neither: add the other one")
    for name in found.keys() - {"classes", "encoder"}:
        if not found[name].ndim or (name != "x_unlabelled" and not len(found[name])):
            raise InputError(f"{where}: {name} holds nothing: give an example at least")
    for x, y in (("x", "y"), ("x_test", "y_test")):
        if x in found and len(found[x]) != len(found[y]):
            raise InputError(f"{where}: {len(found[x])} examples in {x}, but {len(found[y])} labels in {y}: match them")
    for name in found.keys() & {"x_test", "x_unlabelled"}:
        one, other = found["x"], found[name]
        if one.shape[1:] != other.shape[1:] or saved.is_images(one) != saved.is_images(other):
            raise InputError(
                f"{where}: examples of {name} are {other.dtype} of shape {other.shape[1:]}, those of x {one.dtype} of "
                f"shape {one.shape[1:]}: make them alike"
            )


def _classes(found: saved.Arrays, where: str) -> tuple[list[str], list[int] | list[str]]:
    """The names of the classes, and the label of each in `y`."""
    y = _plain(found["y"], f"{where}: y")
    if "classes" in found:
        names = [str(name) for name in _texts(found["classes"], f"{where}: classes").ravel().tolist()]
        values = names if y.dtype.kind == "U" else list(range(len(names)))
    else:
        values = [value for value in np.unique(y).tolist() if value != "" and not (y.dtype.kind == "i" and value < 0)]
        names = [str(value) for value in values]
    if len(names) > limits.CLASSES:
        raise InputError(f"{where}: {len(names):,} different labels are no classes: give at most {limits.CLASSES:,}")
    if len(set(names)) < max(len(names), 2):
        raise InputError(f"{where}: the classes are {names[:5]}: give two at least, each with a name of its own")
    return names, values


def _texts(y: np.ndarray, where: str) -> np.ndarray:
    try:
        return np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y
    except UnicodeDecodeError:
        raise InputError(f"{where}: texts that are not UTF-8: save them as str") from None


def _plain(y: np.ndarray, where: str) -> np.ndarray:
    """Labels `[examples]` as int64 or str."""
    y = _texts(y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y, where)
    if y.ndim != 1:
        raise InputError(f"{where}: shape {y.shape} is not one label an example: give y.argmax(1) of one-hot rows")
    if y.dtype.kind == "f":
        y = np.where(np.isnan(y), -1, y)
        wrong = y[y != np.round(y)] if np.isfinite(y).all() else y[~np.isfinite(y)]
        if len(wrong):
            raise InputError(f"{where}: {wrong[0]} is no class: give integers or texts")
    elif y.dtype.kind not in "biuU":
        raise InputError(f"{where}: {y.dtype} are no labels: give integers or texts")
    if y.dtype.kind in "fu" and len(y) and not -(2**53) <= float(y.min()) <= float(y.max()) <= 2**53:
        raise InputError(f"{where}: {y[np.abs(y.astype(float)).argmax()]} is no class: give integers or texts")
    return y if y.dtype.kind == "U" else y.astype(np.int64)


def _indices(y: np.ndarray, values: Sequence[int | str], where: str) -> Tensor:
    """Class indices `[examples]`, −1 where nobody knows."""
    index: dict[int | str, int] = dict.fromkeys(UNKNOWN, -1)
    index |= {value: number for number, value in enumerate(values)}
    labels, inverse = np.unique(_plain(y, where), return_inverse=True)
    for label in labels.tolist():
        if label not in index:
            raise InputError(f"{where}: label {label!r} is none of the {len(values)} classes: correct it or name it")
    return torch.tensor([index[label] for label in labels.tolist()])[torch.from_numpy(inverse)]
