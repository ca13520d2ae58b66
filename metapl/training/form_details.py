"""What a `Form` says of each kind of data beyond shape and classes, read as data from anywhere and checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metapl.data.formats.grey import WHITES
from metapl.data.formats.tables import layout
from metapl.files.schema import Check, among, any_of, flag, listed, number, positive, table, text, whole
from metapl.registry.errors import InputError

IMAGES = table(
    {"mean": listed(number), "std": listed(positive)},
    {"mirror": flag, "white": whole(WHITES[0], WHITES[-1]), "scale": listed(number, 2, 2)},
)
"""The check of the form of images."""

PIXELS = 2**14
"""Of a side of an image, at most."""

_number = table({"name": text(), "kind": among(("number",)), "mean": number, "std": number, "missing": flag})
_category = table({"name": text(), "kind": among(("category",)), "categories": listed(text(), 1)})


def _column(value: Any, where: str) -> dict[str, Any]:
    kind = table({"kind": among(("number", "category"))}, others=True)(value, where)["kind"]
    found = (_number if kind == "number" else _category)(value, where)
    if kind == "number" and not (found["std"] > 0 or (found["missing"] and found["std"] == 0)):
        raise InputError(f"{where} has no feature: its std must be above 0, or values of it missing")
    return found


_reading = table(
    {},
    {
        **{"missing": listed(text()), "decimal": text(1), "percent": flag},
        **{"header": flag, "encoding": text(40), "sheet": text()},
    },
)

TABLE = table({"columns": listed(_column, 1), "label": text()}, {"reading": _reading, "marker": listed(text())})
"""The check of the form of a table."""


def _images(value: Any, where: str, shape: tuple[int, ...]) -> dict[str, Any]:
    found = IMAGES(value, where)
    if len(shape) != 3 or not len(found["mean"]) == len(found["std"]) == shape[0]:
        raise InputError(f"{where}: mean and std must be a number for each channel of images of shape {list(shape)}")
    return found


def _table(value: Any, where: str, shape: tuple[int, ...]) -> dict[str, Any]:
    found = TABLE(value, where)
    features = len(layout(found["columns"]).columns)
    if shape != (features,):
        raise InputError(f"{where}: columns make {features} features, and the shape is {list(shape)}")
    return found


def _arrays(value: Any, where: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return _scaled(table({"mean": any_of, "std": any_of})(value, where), where, shape)


def _features(value: Any, where: str, shape: tuple[int, ...]) -> dict[str, Any]:
    if len(shape) != 1:
        raise InputError(f"{where}: features are vectors, and the shape is {list(shape)}")
    embedded = {"encoder": text(200), "digest": text(64), "before": _before}
    fields = table({"mean": any_of, "std": any_of, "unit": flag, "because": text()}, embedded)
    found = fields(value, where)
    if 0 < len(embedded.keys() & found.keys()) < len(embedded):
        raise InputError(f"{where}: encoder, digest and before go together")
    return _scaled(found, where, shape)


def _before(value: Any, where: str) -> dict[str, Any]:
    """Of images, which is what metapl embeds by itself."""
    fields = {"kind": among(("images",)), "shape": listed(whole(1, PIXELS), 3, 3), "details": any_of}
    found = table(fields)(value, where)
    return {**found, "details": _images(found["details"], f"{where}: details", tuple(found["shape"]))}


def _scaled(found: dict[str, Any], where: str, shape: tuple[int, ...]) -> dict[str, Any]:
    for name, each in (("mean", number), ("std", positive)):
        check: Check = each
        if type(found[name]) is list:
            for size in reversed(shape):
                check = listed(check, size, size)
        check(found[name], f"{where}: {name}")
    return found


DETAILS: dict[str, Callable[[Any, str, tuple[int, ...]], dict[str, Any]]] = {
    "images": _images,
    "table": _table,
    "arrays": _arrays,
    "features": _features,
}
"""By kind of form: `check(value, where, shape)` of its details."""
