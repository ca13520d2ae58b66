"""All examples of a data set, embedded batch by batch, as the arrays of one file."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from metapl.core import rng
from metapl.core.types import Key
from metapl.data.augment.base import Augment, View
from metapl.data.examples import Examples
from metapl.data.formats import limits
from metapl.data.sources.base import Dataset
from metapl.data.sources.texts import Texts
from metapl.embedding import cache
from metapl.embedding.encoder import Encoder
from metapl.files import storage
from metapl.registry.errors import InputError

Items: TypeAlias = Examples | Sequence[str]
"""Stored examples, or texts."""

Tell: TypeAlias = Callable[[int, bool], object]
"""Called with the number of vectors that a batch gave, and whether they were in the cache."""


class Wanted(NamedTuple):
    """How examples are embedded."""

    views: int = 0
    """Weak and strong views of each example of the training pool, so many of either; 0: none are stored."""
    batch: int = 16
    """Examples at a time."""
    cache: Path | None = None
    """The folder of what has been computed; None for none."""
    drawn: str = ""
    """What the views depend on beside the examples, in words."""


def views(augment: Augment, count: int) -> dict[str, View]:
    """The named views of `count` weak and `count` strong ones."""

    def view(kind: View) -> View:
        def drawn(x: Tensor, key: Key) -> Tensor:
            shared, own = rng.split(key, 2)
            return kind(augment.shared(x, shared), own)

        return drawn

    return {
        f"{name}/{number}": view(kind)
        for name, kind in (("weak", augment.weak), ("strong", augment.strong))
        for number in range(count)
    }


def vectors(
    encoder: Encoder, items: Items, named: Mapping[str, View | None], wanted: Wanted, tell: Tell
) -> dict[str, np.ndarray]:
    """Features `[examples, features]`, float16, of each named view of stored examples or texts; None is the example.

    The key of a view follows from its name and from the number of the first example of the batch.

    Raises:
        InputError: features that float16 cannot hold, a cache that cannot be written, more than memory is allowed for.
    """
    limits.require(2 * len(items) * encoder.features * len(named), "the features")
    made = {name: np.empty((len(items), encoder.features), np.float16) for name in named}
    for start in range(0, len(items), wanted.batch):
        end = min(start + wanted.batch, len(items))
        some = items[start:end] if isinstance(items, Sequence) else items[torch.arange(start, end)]
        content = cache.content(some)
        for name, view in named.items():
            drawn = (name, start, wanted.drawn) if view else ()
            place = cache.place(wanted.cache, encoder.digest, content, drawn) if wanted.cache else None
            known = cache.read(place, (end - start, encoder.features)) if place else None
            if known is None:
                seen = view(some, _key(name, start)) if view and isinstance(some, Tensor) else some
                made[name][start:end] = _half(encoder.encode(seen), encoder)
                if place:
                    cache.write(place, made[name][start:end])
            else:
                made[name][start:end] = known
            tell(end - start, known is not None)
    return made


def _key(name: str, start: int) -> Key:
    return rng.fold_in(rng.fold_in(rng.key(0), zlib.crc32(name.encode())), start)


def _half(features: Tensor, encoder: Encoder) -> np.ndarray:
    """In float16, which holds 3 digits of numbers up to 65,504."""
    half = features.to(torch.float16).numpy()
    if not np.isfinite(half).all():
        raise InputError(f"model {encoder.name!r} makes features beyond 65,504 or NaN: see to its weights and inputs")
    return half


def dataset(encoder: Encoder, data: Dataset, wanted: Wanted, tell: Tell) -> dict[str, np.ndarray]:
    """The arrays of a data set: x, y, x_test, y_test, classes, encoder, and x_weak, x_strong where views are wanted.

    Raises:
        InputError: as `vectors`.
    """
    named: dict[str, View | None] = {"x": None, **views(data.augment, wanted.views)}
    made = vectors(encoder, data.x, named, wanted, tell)
    arrays = {"x": made["x"], "y": data.y.cpu().numpy()}
    for kind in ("weak", "strong") if wanted.views else ():
        arrays[f"x_{kind}"] = np.stack([made[f"{kind}/{number}"] for number in range(wanted.views)])
    test = vectors(encoder, data.x_test, {"x": None}, wanted, tell)["x"]
    return {**arrays, "x_test": test, "y_test": data.y_test.cpu().numpy(), **_named(encoder, data.form.classes)}


def texts(encoder: Encoder, data: Texts, wanted: Wanted, tell: Tell) -> dict[str, np.ndarray]:
    """The arrays of texts: x, y, classes, encoder, and x_test, y_test where there is a test of its own.

    Raises:
        InputError: as `vectors`.
    """
    arrays = {"x": vectors(encoder, data.x, {"x": None}, wanted, tell)["x"], "y": data.y.numpy()}
    if data.x_test:
        arrays["x_test"] = vectors(encoder, data.x_test, {"x": None}, wanted, tell)["x"]
        arrays["y_test"] = data.y_test.numpy()
    return {**arrays, **_named(encoder, data.classes)}


def fresh(encoder: Encoder, items: Items, wanted: Wanted, tell: Tell) -> dict[str, np.ndarray]:
    """The arrays of examples to be predicted: x and encoder.

    Raises:
        InputError: as `vectors`.
    """
    return {"x": vectors(encoder, items, {"x": None}, wanted, tell)["x"], "encoder": _named(encoder, ())["encoder"]}


def save(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as one `.npz` file, whole or not at all.

    Raises:
        InputError: the place cannot be written.
    """
    storage.write(path, lambda temporary: np.savez(temporary, **arrays))


def _named(encoder: Encoder, classes: Sequence[str]) -> dict[str, np.ndarray]:
    return {"classes": np.array(classes), "encoder": np.array(f"{encoder.name}, weights {encoder.digest[:12]}")}
