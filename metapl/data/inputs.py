"""Fresh examples in the form of a data set: to be predicted, or to be learnt from without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from metapl.data import groups
from metapl.data.augment.crops import normalise
from metapl.data.examples import Inputs, Problems, subset
from metapl.data.form import Form
from metapl.data.formats import arrays, features, images, tables
from metapl.data.sources import pools
from metapl.data.sources.base import Dataset
from metapl.registry.errors import InputError


def prepare(form: Form) -> Callable[[Tensor], Tensor]:
    """From the stored form of fresh examples to what a network sees; tables and arrays are read ready for it."""
    if form.kind == "images":
        return normalise(tuple(form.details["mean"]), tuple(form.details["std"]))
    return features.prepare(form) if form.kind == "features" else lambda x: x


READERS: dict[str, Callable[[Form, Sequence[Path], Problems | None], Inputs]] = {
    "images": images.read,
    "table": tables.read,
    "arrays": lambda form, places, _: arrays.read(form, places),
    "features": lambda form, places, _: features.read(form, places),
}
"""By the kind of a form; arrays are read as a whole or not at all."""


def read(form: Form, places: Sequence[Path], problems: Problems | None = None) -> Inputs:
    """The examples in files and folders, in the stored form of the data set that `form` is of.

    Args:
        form: of the data set.
        places: files and folders.
        problems: where it is noted what is wrong with single examples; without, any of it is an error.

    Raises:
        InputError: a file that is not there, or holds something else.
    """
    for place in places:
        if not place.exists():
            raise InputError(f"{place} does not exist: name a file or a folder")
    return READERS[form.kind](form, places, problems)


def with_unlabelled(data: Dataset, text: str) -> Dataset:
    """A data set with more examples in its training pool, whose classes nobody knows.

    Raises:
        InputError: they cannot be read, or the data set holds no examples of the kind that files give.
    """
    more = read(data.form, [Path(text)])
    if (data.form.kind == "features" or "scale" in data.form.details) and isinstance(more.x, Tensor):
        more = more._replace(x=more.x.to(data.x.dtype))
    if more.x.dtype != data.x.dtype or more.x.shape[1:] != data.x.shape[1:]:
        why = "has stored views" if data.form.kind == "features" else "is embedded"
        raise InputError(f"--unlabelled {text}: the data {why} and takes no more examples: give your own --data")
    known = [data.x_test, *([subset(data.x, data.validation)] if data.validation is not None else [])]
    more, notes = pools.without_copies(more, known) if data.form.kind in ("images", "arrays") else (more, [])
    pool = pools.with_unknown(pools.Part(data.x, data.y), more.x)
    found = groups.extended(data.groups, len(pool.y))
    before = data.names or tuple(map(data.name, range(len(data.y))))
    names = (*before, *(f"{text}: {name}" if data.form.kind == "table" else name for name in more.names))
    return data._replace(x=pool.x, y=pool.y, groups=found, notes=(*data.notes, *notes), names=names)
