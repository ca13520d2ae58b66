"""One's own arrays, as numpy saves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metapl.core import rng
from metapl.data import marker as rule
from metapl.data.augment import presets
from metapl.data.form import Form
from metapl.data.formats import arrays as saved
from metapl.data.formats import grey, limits
from metapl.data.formats.files import shown
from metapl.data.notes import Note, some
from metapl.data.sources import pools
from metapl.data.sources.base import Dataset
from metapl.data.sources.held_out import hold_out
from metapl.registry.errors import InputError

NAN = -(2**63)
"""What NaN becomes among labels, which mean no class there as the empty text does."""

UNKNOWN = (NAN, "")
"""Labels of examples whose class nobody knows, whatever the others are."""


def is_arrays(place: Path) -> bool:
    """Whether a place is an `.npz` file, or a folder with `x.npy` or another of its names."""
    if place.is_file():
        return place.suffix.lower() == ".npz"
    return any((place / f"{name}.npy").is_file() for name in saved.NAMES["x"])


class _Labels(NamedTuple):
    """What labels mean."""

    names: list[str]
    """Of the classes."""
    index: dict[int | str, int]
    """The class of each label, −1 where it means that there is none."""
    notes: list[Note]


def arrays(place: Path, *, test: float = 0.2, marker: str = rule.AUTO, read_as: str = "auto") -> Dataset:
    """An `.npz` file with `x` and `y`, or a folder with `x.npy` and `y.npy`; see `metapl.data.formats.arrays.NAMES`.

    `x_test` and `y_test` are the test set; without them `x_val` and `y_val` are, else a share of every class is held
    out. Beside a test set, `x_val` and `y_val` are the validation set. In the training pool they follow the others, and
    `x_unlabelled` follows them. Everything is in memory.

    - Images are arrays of 3 dimensions `[n, height, width]`, or of 4 with 1 or 3 channels, of any dtype; which of them,
      and what is white, is said by `metapl.data.formats.grey.scale_of`. They are uint8 where that loses nothing.
    - All else is numbers, kept as float32 and standardised by the training pool, see
      `metapl.data.formats.arrays.scale`.

    Labels `y` are integers or texts; NaN, the empty text and what `metapl.data.marker.find` finds, such as −1, are of
    examples whose class nobody knows. If `classes` names the classes, integers are indices into it, −1 is unknown, and
    texts are in it; else the classes are the labels that there are, sorted. One column `[n, 1]` will do.

    Args:
        place: the file or folder.
        test: share of every class that is held out, the same for every seed, unless there is `x_test`.
        marker: labels that mean no label, as `LABEL/LABEL`; auto for the rule of `metapl.data.marker.find`.
        read_as: what the examples are, images, numbers or auto.

    Raises:
        InputError: arrays that are not there, cannot be read or do not fit together, labels that are none.
    """
    found, where = saved.load(place), shown(place)
    _require_whole(found, where)
    labels = _classes(found, where, marker)
    x, y = found["x"], _indices(found["y"], labels, f"{where}: y")
    x_test, y_test = _apart(found, "test", labels, where)
    x_val, y_val = _apart(found, "validation", labels, where)
    notes = [*labels.notes, *_left_alone(place)]
    if x_test is None and x_val is not None:
        notes.append(Note("test", "the validation arrays are the test set, since there is no other"))
        x_test, y_test, x_val, y_val = x_val, y_val, None, y_val[:0]
    if x_test is None:
        kept, held = hold_out(y, test, rng.key(0))
        x, x_test, y, y_test = x[kept.numpy()], x[held.numpy()], y[kept], y[held]
    given = len(x) + torch.arange(len(y_val)) if x_val is not None else None
    more = [one for one in (x_val, found.get("x_unlabelled")) if one is not None]
    x = np.concatenate([x, *more])
    y = torch.cat([y, y_val])
    y = torch.cat([y, torch.full((len(x) - len(y),), -1)])
    scale = _scale(x, read_as, where)
    if scale:
        notes += _levels_note(x, scale)
        data = _of_levels((x, y), (x_test, y_test), labels.names, scale, where)
    else:
        data = _of_numbers((x, y), (x_test, y_test), labels.names, where)
    return data._replace(validation=given, notes=tuple(notes))


def _scale(x: np.ndarray, read_as: str, where: str) -> grey.Scale | None:
    if read_as not in ("auto", "images", "numbers"):
        raise InputError(f"read_as={read_as} must be images, numbers or auto")
    scale = None if read_as == "numbers" else grey.scale_of(x)
    if read_as == "images" and scale is None:
        raise InputError(f"{where}: {x.dtype} of shape {x.shape} are no images: give [n, height, width, channels]")
    return scale


def _levels_note(x: np.ndarray, scale: grey.Scale) -> list[Note]:
    said = f"{x.dtype} {list(x.shape[1:])} are images, black is {scale.black:.6g} and white {scale.white:.6g}"
    return [Note("levels", f"{said}: read_as=numbers if they are none")] if x.dtype != np.uint8 else []


def _apart(found: saved.Arrays, part: str, labels: _Labels, where: str) -> tuple[np.ndarray | None, Tensor]:
    """Examples and class indices of the test or the validation set, of which everyone has a label; None and nothing."""
    name = f"y_{part}"
    if name not in found:
        return None, torch.zeros(0, dtype=torch.int64)
    y = _indices(found[name], labels, f"{where}: {name}")
    if (y < 0).any():
        raise InputError(
            f"{where}: {name} has labels that nobody knows: leave these examples out, or give marker= with nothing "
            "after it if they are a class"
        )
    return found[f"x_{part}"], y


def _left_alone(place: Path) -> list[Note]:
    known = {name for names in saved.NAMES.values() for name in names}
    others = sorted(name for name in saved.names(place) if name not in known)
    return [Note("left out", f"arrays of other names: {some(others)}")] if others else []


def _of_levels(
    pool: tuple[np.ndarray, Tensor],
    test: tuple[np.ndarray, Tensor],
    classes: Sequence[str],
    scale: grey.Scale,
    where: str,
) -> Dataset:
    plain = pool[0].dtype == np.uint8
    of = (lambda x: saved.levels(x, where)) if plain else (lambda x: grey.levels(saved.numbers(x, where), scale, where))
    one, other = (pools.Part(of(x), y) for x, y in (pool, test))
    return pools.of_images(one, other, classes, **({} if plain else {"scale": list(scale)}))


def _of_numbers(
    pool: tuple[np.ndarray, Tensor], test: tuple[np.ndarray, Tensor], classes: Sequence[str], where: str
) -> Dataset:
    (x, y), (x_test, y_test) = ((saved.numbers(x, where), y) for x, y in (pool, test))
    mean, std = saved.scale(x, where)
    form = Form("arrays", x.shape[1:], tuple(classes), {"mean": mean.tolist(), "std": std.tolist()})
    scaled, scaled_test = (saved.standardised(part, mean, std, where) for part in (x, x_test))
    return Dataset(scaled, y, scaled_test, y_test, presets.default(form), form)


def _require_whole(found: saved.Arrays, where: str) -> None:
    """Check that all arrays are there and fit together."""
    missing = next((name for name in ("x", "y") if name not in found), None)
    if missing:
        raise InputError(f"{where}: no array {missing}: call it {' or '.join(saved.NAMES[missing])}")
    for name in found.keys() - {"classes"}:
        if not found[name].ndim or (name != "x_unlabelled" and not len(found[name])):
            raise InputError(f"{where}: {name} holds nothing: give an example at least")
    for x, y in (("x", "y"), ("x_test", "y_test"), ("x_validation", "y_validation")):
        if (x in found) != (y in found):
            raise InputError(f"{where}: {x} and {y} must be there both or neither: add the other one")
        if x in found and len(found[x]) != len(found[y]):
            raise InputError(f"{where}: {len(found[x])} examples in {x}, but {len(found[y])} labels in {y}: match them")
    for name in found.keys() & {"x_test", "x_validation", "x_unlabelled"}:
        one, other = found["x"], found[name]
        if one.shape[1:] != other.shape[1:] or saved.is_images(one) != saved.is_images(other):
            raise InputError(
                f"{where}: examples of {name} are {other.dtype} of shape {other.shape[1:]}, those of x {one.dtype} of "
                f"shape {one.shape[1:]}: make them alike"
            )


def _classes(found: saved.Arrays, where: str, marker: str) -> _Labels:
    y = _plain(found["y"], f"{where}: y")
    known, numbers = np.unique(y, return_counts=True)
    counts = {value: number for value, number in zip(known.tolist(), numbers.tolist(), strict=True) if value != ""}
    given = [str(name) for name in _texts(found["classes"], where).ravel().tolist()] if "classes" in found else []
    values: list[int] | list[str] = given if y.dtype.kind == "U" else list(range(len(given)))
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
    index: dict[int | str, int] = {**dict.fromkeys(UNKNOWN, -1), **{value: at for at, value in enumerate(values)}}
    index |= {value: -1 for value in counts if str(value) in words}
    index.setdefault(-1, -1)
    return _Labels(given, index, rule.notes(others, words))


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


def _indices(y: np.ndarray, known: _Labels, where: str) -> Tensor:
    """Class indices `[examples]`, −1 where nobody knows."""
    labels, inverse = np.unique(_plain(y, where), return_inverse=True)
    for label in labels.tolist():
        if label not in known.index:
            raise InputError(
                f"{where}: label {label!r} is none of the {len(known.names)} classes: correct it or name it"
                + (
                    ", or give marker=, with nothing after it if it is a class"
                    if isinstance(label, int) and label < 0
                    else ""
                )
            )
    return torch.tensor([known.index[label] for label in labels.tolist()])[torch.from_numpy(inverse)]
