"""One's own arrays, as numpy saves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from metapl.data import marker as rule
from metapl.data.augment import presets
from metapl.data.form import Form
from metapl.data.formats import arrays as saved
from metapl.data.formats import grey
from metapl.data.formats.files import shown
from metapl.data.notes import Note, some
from metapl.data.sources import array_labels, array_parts, embedded, pools
from metapl.data.sources.base import Dataset
from metapl.data.sources.copies import repeated, require_way
from metapl.registry.errors import InputError

_SHOWN = 4

_IMAGES = ("x", "x_test", "x_validation", "x_unlabelled")


def is_arrays(place: Path) -> bool:
    """Whether a place is an `.npz` file, or a folder with `x.npy` or another of its names."""
    if place.is_file():
        return place.suffix.lower() == ".npz"
    return any((place / f"{name}.npy").is_file() for name in saved.NAMES["x"])


def arrays(
    place: Path,
    *,
    test: float = 0.2,
    scale: str = "auto",
    marker: str = rule.AUTO,
    read_as: str = "auto",
    copies: str = "auto",
) -> Dataset:
    """An `.npz` file with `x` and `y`, or a folder with `x.npy` and `y.npy`; see `metapl.data.formats.arrays.NAMES`.

    `x_test` and `y_test` are the test set; without them `x_val` and `y_val` are, else a share of every class is held
    out. Beside a test set, `x_val` and `y_val` are the validation set. In the training pool they follow the others, and
    `x_unlabelled` follows them. Examples with the same value in `groups` stay on one side of the test and of the
    validation that are held out. Everything is in memory.

    - Images are arrays of 3 dimensions `[n, height, width]`, or of 4 with 1 or 3 channels, of any dtype; which of them,
      and what is white, is said by `metapl.data.formats.grey.scale_of`. They are uint8 where that loses nothing.
    - Features of a network, see `metapl.data.formats.features.recognise`, are divided by their length. The weak and the
      strong view of training are drawn from `x_weak` and `x_strong`, `[views, n, features]`, where these are there.
    - All else is numbers, kept as float32 and standardised by the training pool, see
      `metapl.data.formats.arrays.scale`.

    Labels `y` are integers or texts; NaN, the empty text and what `metapl.data.marker.find` finds, such as −1, are of
    examples whose class nobody knows. If `classes` names the classes, integers are indices into it, −1 is unknown, and
    texts are in it; else the classes are the labels that there are, sorted. One column `[n, 1]` will do.

    Args:
        place: the file or folder.
        test: share of every class that is held out, the same for every seed, unless there is `x_test`.
        scale: of vectors: unit divides each by its length, standard brings each number to mean 0 and deviation 1, none
            leaves them; auto is unit for features and standard for other numbers.
        marker: labels that mean no label, as `LABEL/LABEL`; auto for the rule of `metapl.data.marker.find`.
        read_as: what the examples are, images, numbers or auto.
        copies: of images, as of `metapl.data.sources.folder.folder`.

    Raises:
        InputError: arrays that are not there, cannot be read or do not fit together, labels that are none, a scale that
            is unknown or for what are no vectors.
    """
    found, where = saved.load(place), shown(place)
    _require_whole(found, where, saved.names(place))
    for name in _IMAGES:
        if name in found:
            saved.require_finite(found[name], f"{where}: {name}")
    labels = array_labels.classes(found, where, marker)
    require_way(copies)
    because = embedded.wanted(found, scale, where)
    if because:
        found = {**found, "x": embedded.stored(found, where)}
    grey_scale = None if because else _grey_scale(found, read_as, where)
    said: list[Note] = []
    if grey_scale:  # so that the one copy that is made of them has their channels first
        said = _levels_note(found["x"], grey_scale)
        found = {name: grey.channels_first(x) if name in _IMAGES else x for name, x in found.items()}
    # Rows of numbers may be equal without being copies.
    parts = array_parts.divide(found, labels, test, copies if grey_scale else "keep", where)
    found = {name: x for name, x in found.items() if name not in _IMAGES}
    if grey_scale:
        data = _of_levels(parts.pool, parts.test, labels.names, grey_scale, where)
    elif because:
        form = embedded.form(parts.pool.x, labels.names, scale, because, where)
        data = embedded.dataset(parts.pool, parts.test, form, found)
    else:
        data = _of_numbers(parts.pool, parts.test, labels.names, where)
        said = repeated(*(x for x in (data.x, data.x_test) if isinstance(x, Tensor)))
    notes = [*labels.notes, *rule.alike(labels.names), *_left_alone(place), *parts.notes, *said]
    return data._replace(validation=parts.validation, groups=parts.groups, notes=tuple(notes))


def _grey_scale(found: saved.Arrays, read_as: str, where: str) -> grey.Scale | None:
    x = [found[name] for name in ("x", "x_unlabelled") if name in found and len(found[name])]
    if read_as not in ("auto", "images", "numbers"):
        raise InputError(f"read_as={read_as} must be images, numbers or auto")
    scale = None if read_as == "numbers" else grey.scale_of(*x)
    if read_as == "images" and scale is None:
        raise InputError(
            f"{where}: {x[0].dtype} of shape {x[0].shape} are no images: give [n, height, width, channels]"
        )
    return scale


def _levels_note(x: np.ndarray, scale: grey.Scale) -> list[Note]:
    said = f"{x.dtype.name} {list(x.shape[1:])} are images, black is {scale.black:.6g} and white {scale.white:.6g}"
    return [Note("levels", f"{said}: read_as=numbers if they are none")] if x.dtype != np.uint8 else []


def _left_alone(place: Path) -> list[Note]:
    known = {name for names in saved.NAMES.values() for name in names}
    others = sorted(name for name in saved.names(place) if name not in known)
    return [Note("left out", f"arrays of other names: {some(others)}")] if others else []


def _of_levels(
    pool: array_parts.Part, test: array_parts.Part, classes: Sequence[str], scale: grey.Scale, where: str
) -> Dataset:
    plain = pool.x.dtype == np.uint8
    of = (lambda x: saved.levels(x, where)) if plain else (lambda x: grey.levels(saved.numbers(x, where), scale, where))
    one, other = (pools.Part(of(x), y) for x, y in (pool, test))
    return pools.of_images(one, other, classes, **({} if plain else {"scale": list(scale)}))


def _of_numbers(pool: array_parts.Part, test: array_parts.Part, classes: Sequence[str], where: str) -> Dataset:
    (x, y), (x_test, y_test) = ((saved.numbers(x, where), y) for x, y in (pool, test))
    mean, std = saved.scale(x, where)
    form = Form("arrays", x.shape[1:], tuple(classes), {"mean": mean.tolist(), "std": std.tolist()})
    scaled, scaled_test = (saved.standardised(part, mean, std, where) for part in (x, x_test))
    return Dataset(scaled, y, scaled_test, y_test, presets.default(form), form)


def _require_whole(found: saved.Arrays, where: str, given: Sequence[str]) -> None:
    """Check that all arrays are there and fit together."""
    missing = next((name for name in ("x", "y") if name not in found), None)
    if missing:
        usual = " or ".join(saved.NAMES[missing][:_SHOWN])
        raise InputError(f"{where}: no array {missing} among {some(sorted(given), 5)}: call it {usual}")
    for name in found.keys() - {"classes", "encoder"}:
        if not found[name].ndim or (name != "x_unlabelled" and not len(found[name])):
            raise InputError(f"{where}: {name} holds nothing: give an example at least")
    for x, y in (("x", "y"), ("x_test", "y_test"), ("x_validation", "y_validation")):
        if (x in found) != (y in found):
            raise InputError(f"{where}: {x} and {y} must be there both or neither: add the other one")
        if x in found and len(found[x]) != len(found[y]):
            raise InputError(f"{where}: {len(found[x])} examples in {x}, but {len(found[y])} labels in {y}: match them")
    if "groups" in found and found["groups"].shape != (len(found["x"]),):
        raise InputError(
            f"{where}: groups of shape {found['groups'].shape}: give one for each of {len(found['x'])} in x"
        )
    for name in found.keys() & {"x_test", "x_validation", "x_unlabelled"}:
        one, other = found["x"], found[name]
        if one.shape[1:] != other.shape[1:] or saved.is_images(one) != saved.is_images(other):
            raise InputError(
                f"{where}: examples of {name} are {other.dtype} of shape {other.shape[1:]}, those of x {one.dtype} of "
                f"shape {one.shape[1:]}: make them alike"
            )
