"""What the parts of a data set are called: folders, files, and cells of a column."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from metapl.data import marker
from metapl.data.formats.files import shown, subfolders
from metapl.data.notes import Note, some
from metapl.registry.errors import InputError

Name: TypeAlias = Literal["train", "test", "validation", "unlabelled"]
"""What examples are for."""

_NAMES: dict[Name, str] = {
    "train": "train|training|trn",
    "test": "test|testing|tst|held ?out|hold ?out",
    "validation": "val|valid|validation|validate|dev|development|eval|evaluation",
}

_SUFFIX = "( ?(set|data|split|part|folder|images?|imgs|examples))?"


def name_of(text: str) -> Name | None:
    """The part that a text names, in any case, as in `Train`, `test_set` and `valid`; None if it names none."""
    words = re.sub(r"[\W_]+", " ", text.casefold()).strip()
    if words and marker.is_sure(text):
        return "unlabelled"
    return next((part for part, names in _NAMES.items() if re.fullmatch(f"({names}){_SUFFIX}", words)), None)


def names_of(texts: Sequence[str]) -> list[Name | None]:
    """The part that each text names, also where all have a word in common, as in `seg_train` and `seg_test`."""
    found = [name_of(text) for text in texts]
    if "train" in found:
        return found
    for pattern in (r"[\W_]*[^\W_]+[\W_]+(.*)", r"(.*?)[\W_]+[^\W_]+[\W_]*"):
        rest = [re.fullmatch(pattern, text) for text in texts]
        words = {text.replace(one.group(1), "").casefold() for text, one in zip(texts, rest, strict=True) if one}
        parts = [name_of(one.group(1)) if one else None for one in rest]
        if all(rest) and len(words) == 1 and "train" in parts and len({*parts} - {None}) > 1:
            return parts
    return found


class Layout(NamedTuple):
    """The folders of a data set in parts."""

    train: Path
    test: Path | None
    validation: Path | None
    unlabelled: tuple[Path, ...]
    """Folders of examples without labels, beside the other parts."""
    notes: tuple[Note, ...]


def layout(place: Path, usable: Callable[[Path], bool], remedy: str) -> Layout | None:
    """The parts directly below a folder, by their names; None where no folder of the training is among them.

    The test set is the test, or, where there is none that is usable, the validation set, which then serves as the test.

    Args:
        place: the folder.
        usable: whether a folder holds labelled examples.
        remedy: what is wrong with a test that is not, and what to do, for errors.

    Raises:
        InputError: two folders for one part, or a test and a validation set of which none is usable.
    """
    found: dict[Name | None, list[Path]] = {}
    inner = subfolders(place)
    for one, part in zip(inner, names_of([one.name for one in inner]), strict=True):
        found.setdefault(part, []).append(one)
    for part in _NAMES:
        if len(found.get(part, [])) > 1:
            raise InputError(f"{shown(place)}: {some([one.name for one in found[part]])} all name the {part}: keep one")
    if "train" not in found or not usable(found["train"][0]):
        return None
    present = [found[part][0] for part in ("test", "validation") if part in found]
    able = [one for one in present if usable(one)]
    if present and not able:
        raise InputError(f"{shown(present[0])}: {remedy}")
    notes = [Note("left out", f"{one.name}/, which holds no labelled examples") for one in present if one not in able]
    if able and able[0] in found.get("validation", ()):
        notes.append(Note("test", f"{able[0].name}/ is the test set, since there is no other"))
    if None in found:
        notes.append(
            Note("left out", f"{some([f'{one.name}/' for one in found[None]])} beside {found['train'][0].name}/")
        )
    test, validation = (*able, None, None)[:2]
    return Layout(found["train"][0], test, validation, tuple(found.get("unlabelled", ())), tuple(notes))
