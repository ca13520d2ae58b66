"""Features of a pretrained network as a data set, its views drawn from those that were stored with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from metapl.data.augment import base, presets
from metapl.data.augment.stored import pick
from metapl.data.form import Form
from metapl.data.formats import arrays, features, limits
from metapl.data.sources.base import Dataset
from metapl.registry.errors import InputError, unknown

VIEWS = ("x_weak", "x_strong")
"""The arrays of stored views, `[views, examples, features]`, in the order in which `stored` has them."""


def wanted(found: Mapping[str, np.ndarray], scale: str, where: str) -> str:
    """Why arrays are to be read as features, in words; empty if they are not.

    Raises:
        InputError: an unknown scale, one for what are no vectors, or views of what are no features.
    """
    if scale not in ("auto", *features.SCALES):
        raise unknown("scale", scale, ("auto", *features.SCALES))
    if scale != "auto" and found["x"].ndim != 2:
        raise InputError(f"{where}: scale={scale} is for vectors [n, features], not for shape {found['x'].shape}")
    because = features.recognise(found)
    if not because and scale in ("unit", "none"):
        return f"scale={scale}"
    extra = [name for name in VIEWS if name in found]
    if extra and not because:
        raise InputError(f"{where}: {extra[0]} is for features: give scale=unit, or leave it out")
    return because


def stored(found: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    """The examples with their stored views, see `metapl.data.formats.features`; float16 stays, all else is float32.

    Raises:
        InputError: views of another shape, one kind without the other, numbers that are none.
    """
    x = _kept(arrays.numbers(found["x"], where))
    if x.ndim != 2:
        raise InputError(f"{where}: features are vectors [n, features], not of shape {x.shape}: leave encoder out")
    extra = [name for name in VIEWS if name in found]
    if not extra:
        return x
    if len(extra) < len(VIEWS) or found.keys() & {"x_unlabelled", "x_validation"}:
        raise InputError(f"{where}: views need x_weak and x_strong, of all examples: embed all of them together")
    for name in extra:
        if found[name].shape[1:] != x.shape or found[name].ndim != 3:
            raise InputError(f"{where}: {name} has shape {found[name].shape}: give [views, {len(x)}, {x.shape[1]}]")
    limits.require(x.nbytes * (1 + sum(len(found[name]) for name in VIEWS)), where)
    views = [_kept(arrays.numbers(found[name], f"{where}: {name}")) for name in VIEWS]
    return np.ascontiguousarray(np.concatenate([x[None], *views]).swapaxes(0, 1))


def _kept(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16 if x.dtype == np.float16 else np.float32, copy=False)


def form(x: np.ndarray, classes: Sequence[str], scale: str, because: str, where: str) -> Form:
    """The form of features, by the training pool.

    Raises:
        InputError: numbers that cannot be scaled.
    """
    name = "unit" if scale == "auto" else scale
    alone = x if x.ndim == 2 else x[:, 0]
    details = {**features.details(name, alone, where), "because": because}
    return Form("features", alone.shape[1:], tuple(classes), details)


def dataset(
    pool: tuple[np.ndarray, Tensor], test: tuple[np.ndarray, Tensor], form: Form, found: Mapping[str, np.ndarray]
) -> Dataset:
    """The data set, whose weak and strong views are the stored ones, or else `metapl.data.augment.presets.jitter`.

    Args:
        pool: examples as `stored` has them, and class indices.
        test: the same, or without views.
        form: of the features.
        found: the arrays of the file, for the number of views.
    """
    x, x_test = (torch.from_numpy(part[0]) for part in (pool, test))
    views = presets.default(form)
    if all(name in found for name in VIEWS):
        weak, strong = (len(found[name]) for name in VIEWS)
        views = base.Augment(pick(1, 1 + weak), pick(1 + weak, 1 + weak + strong), prepare=views.prepare)
    return Dataset(x, pool[1], features.itself(x_test).contiguous(), test[1], views, form)
