"""The labels of arrays: the class of each, and which mean that there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metapl.data import marker as rule
from metapl.data.formats import limits
from metapl.data.formats.npy import Arrays
from metapl.data.notes import Note
from metapl.registry.errors import InputError

NAN = -(2**63)
"""What NaN becomes among labels, which mean no class there as the empty text does."""

UNKNOWN = (NAN, "")
"""Labels of examples whose class nobody knows, whatever the others are."""


class Labels(NamedTuple):
    """What labels mean."""

    names: list[str]
    """Of the classes."""
    class_of: dict[int | str, int]
    """The class of each label, −1 where it means that there is none."""
    notes: list[Note]


def classes(found: Arrays, where: str, marker: str) -> Labels:
    """What the labels of `y` mean, given the names of the classes or not.

    Args:
        found: the arrays `y` and, if it is there, `classes`.
        where: they are from, for errors.
        marker: labels that mean no label, see `metapl.data.marker.find`.

    Raises:
        InputError: labels that are none, fewer than two classes, a label that may be a class or mean none.
    """
    y = _plain(found["y"], f"{where}: y")
    known, numbers = np.unique(y, return_counts=True)
    counts = {value: number for value, number in zip(known.tolist(), numbers.tolist(), strict=True) if value != ""}
    given = [str(name) for name in _texts(found["classes"], where).ravel().tolist()] if "classes" in found else []
    values: list[int | str] = [*given] if y.dtype.kind == "U" else list(range(len(given)))
    others = {str(value): number for value, number in counts.items() if value not in (*values, NAN)}
    # Where integers count the names of classes, −1 can be nothing else than none.
    settled = marker == rule.AUTO and given and y.dtype.kind == "i"
    words = others.keys() & {"-1"} if settled else rule.find(others, marker, f"{where}: y")
    if not given:
        # A number below −1 is refused, unless somebody has said what it means.
        least = -1 if marker == rule.AUTO else NAN + 1
        values = [value for value in counts if str(value) not in words and not (y.dtype.kind == "i" and value < least)]
        given = [str(value) for value in values]
    _require_classes(given, where)
    index: dict[int | str, int] = dict.fromkeys(UNKNOWN, -1)
    for at, value in enumerate(values):
        index[value] = at
    index.update({value: -1 for value in counts if str(value) in words})
    index.setdefault(-1, -1)
    return Labels(given, index, rule.notes(others, words))


def _require_classes(names: Sequence[str], where: str) -> None:
    if len(names) > limits.CLASSES:
        raise InputError(f"{where}: {len(names):,} different labels are no classes: give at most {limits.CLASSES:,}")
    if len(set(names)) < max(len(names), 2):
        raise InputError(f"{where}: the classes are {names[:5]}: give two at least, each with a name of its own")


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
        known = y[~np.isnan(y)]
        wrong = known[known != np.round(known)] if np.isfinite(known).all() else known[~np.isfinite(known)]
        if len(wrong):
            raise InputError(f"{where}: {wrong[0]} is no class: give integers or texts")
    elif y.dtype.kind not in "biuU":
        raise InputError(f"{where}: {y.dtype} are no labels: give integers or texts")
    if y.dtype.kind in "fu":
        exact = y.astype(np.float64)
        largest = np.nanmax(np.abs(exact), initial=0)
        if largest > 2**53:
            raise InputError(f"{where}: {largest:.17g} is no class: give integers or texts")
        y = np.where(np.isnan(exact), NAN, exact) if y.dtype.kind == "f" else y
    return y if y.dtype.kind == "U" else y.astype(np.int64)


def indices(y: np.ndarray, known: Labels, where: str) -> Tensor:
    """Class indices `[examples]`, int64, −1 where nobody knows.

    Raises:
        InputError: a label that is none of the classes.
    """
    labels, inverse = np.unique(_plain(y, where), return_inverse=True)
    for label in labels.tolist():
        if label not in known.class_of:
            raise InputError(
                f"{where}: label {label!r} is none of the {len(known.names)} classes: correct it or name it"
                + (
                    ", or give marker=, with nothing after it if it is a class"
                    if isinstance(label, int) and label < 0
                    else ""
                )
            )
    return torch.tensor([known.class_of[label] for label in labels.tolist()])[torch.from_numpy(inverse)]
