"""The classes that fresh examples came with: names of their folders, a column of their table, an array beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metapl.data import marker
from metapl.data.form import Form
from metapl.data.formats import archives, arrays, table_file
from metapl.data.formats.cells import parse, reading
from metapl.data.sources.listed import given as listed


def known(form: Form, places: Sequence[Path], names: Sequence[str]) -> list[str]:
    """The class of each example, as the form has its name; empty where nobody knows.

    Of images it is what a file of labels in their folder says, or else the first folder below the place that is called
    as a class, if two classes at least are met; of arrays their labels, as `y` of the training had them; of tables the
    column of the labels.

    Args:
        form: of the run.
        places: where the examples are from.
        names: of the examples, as `metapl.data.inputs.read` has them.

    Raises:
        InputError: what the readers refuse.
    """
    if form.kind == "table":
        return _of_tables(form, places)
    found = dict(
        pair for place in places if place.is_dir() or place.suffix == ".npz" for pair in _of_arrays(form, place)
    )
    found |= {str(image): label for place in places for image, label in listed(place).items()}
    found |= _of_folders(form, places, [name for name in names if name not in found])
    return [found.get(name, "") for name in names]


def indices(form: Form, labels: Iterable[str]) -> Tensor:
    """Class indices, `[examples]`, int64, −1 where a label is empty or no class of the form."""
    index = {name: at for at, name in enumerate(form.classes)}
    return torch.tensor([index.get(label, -1) for label in labels], dtype=torch.int64)


def _of_tables(form: Form, places: Sequence[Path]) -> list[str]:
    how, none = reading(form.details.get("reading", {})), frozenset(form.details.get("marker", ()))
    found: list[str] = []
    for place in places:
        table = table_file.load(place, how.header, how.encoding, how.sheet)
        found += table.columns.get(form.details["label"], [""] * len(table.lines))
    return as_classes(["" if label in none or marker.is_sure(label) else label for label in found], form.classes)


def as_classes(labels: Iterable[str], classes: Sequence[str]) -> list[str]:
    """Labels as the classes are written, where numbers have their shortest form: 1.0 for the class 1 too."""
    numbers = {parse(name): name for name in classes if parse(name) is not None}
    return [label and numbers.get(parse(label), label) for label in labels]


def _of_folders(form: Form, places: Sequence[Path], names: Sequence[str]) -> dict[str, str]:
    roots = [place for place in places if place.is_dir() or archives.is_packed(place)]
    found: dict[str, str] = {}
    for name in names:
        root = next((place for place in roots if Path(name).is_relative_to(place)), None)
        if root is not None:
            folders = Path(name).relative_to(root).parts[:-1]
            label = next((folder for folder in folders if folder in form.classes), "")
            found |= {name: label} if label else {}
    return found if len(set(found.values())) > 1 else {}


def _of_arrays(form: Form, place: Path) -> list[tuple[str, str]]:
    """The labels of an `.npz` file or a folder of arrays, if there are as many as examples."""
    if place.is_dir() and not (place / "x.npy").is_file():
        return []
    given = arrays.load(place)
    if "y" not in given or "x" not in given or given["y"].shape[:1] != given["x"].shape[:1]:
        return []
    labels = [_label(value, given.get("classes"), form.classes) for value in given["y"].ravel().tolist()]
    return [(f"{place}[{number}]", label) for number, label in enumerate(labels)]


def _label(value: object, names: np.ndarray | None, classes: Sequence[str]) -> str:
    """A label as the class that it means: by its text, or as an index of the names that are given with it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if names is not None and isinstance(value, int):
        value = names.tolist()[value] if 0 <= value < len(names) else ""
    return str(value) if str(value) in classes else ""
