"""One's own images, in a folder for each class."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from metapl.data import marker as rule
from metapl.data.formats import images
from metapl.data.formats.decode import ENDINGS
from metapl.data.formats.files import holds, shown, subfolders
from metapl.data.notes import Note, some
from metapl.data.sources import parts, pools
from metapl.data.sources.base import Dataset
from metapl.data.sources.labelled_files import no_images
from metapl.registry.errors import InputError


def is_folder(place: Path) -> bool:
    """Whether a folder has folders with images in them, or folders with such folders."""
    return place.is_dir() and any(
        holds(inner, ENDINGS) for outer in [place, *subfolders(place)] for inner in subfolders(outer)
    )


def folder(  # noqa: PLR0913 - one option a parameter
    place: Path,
    *,
    size: int = 0,
    channels: int = 0,
    test: float = 0.2,
    unlabelled: str = "",
    marker: str = rule.AUTO,
    white: int = 0,
    copies: str = "auto",
    group: str = "",
    skip_bad: bool = False,
) -> Dataset:
    r"""Images in a folder for each class, `place/CLASS/…`, or, with a test set, `place/train/CLASS/…`.

    The test set is `place/test/CLASS/…`, the validation set `place/val/CLASS/…`, by any name that
    `metapl.data.sources.parts` knows, in any case. A validation set without a test set is the test set. Without both, a
    share of every class is held out. Images without labels are in a folder whose name says so, such as `unlabelled`,
    beside the classes or beside `train`, and in the place of the option: in folders at any depth, or in shards. They
    follow the labelled ones in the training pool.

    Classes are in the order of their names, character by character: 10 comes before 2. So are the images, by the names
    of their files first, whatever their class: where files are numbered through, the numbers are the order. What
    becomes of an image is in `metapl.data.formats.decode`; up to 1 GiB of them is kept in memory, and more is read when
    needed.

    Args:
        place: the folder.
        size: of the images, square; 0 for a guess by `metapl.data.formats.images.guess_shape`.
        channels: 1 for grey, 3 for colours, 0 for a guess.
        test: share of every class that is held out, the same for every seed, unless there is a folder for the test.
        unlabelled: a folder of images, a shard, a folder of shards, or an array, in addition.
        marker: names of folders beside the classes that hold images without labels, as `NAME/NAME`; auto for the rule
            of `metapl.data.marker.find`.
        white: the level of white in files of 16 bits, such as 4095; 0 for a guess by the files.
        copies: auto keeps copies on one side where a test is held out, leaves those of the test out of the images
            without labels, and reports others; drop leaves them out of the training too; keep does nothing.
        group: a regular expression: files in whose path it finds the same, such as `patient\d+`, stay on one side of
            the test and of the validation that are held out.
        skip_bad: leave out files that are no images that can be read, and say which; all files are decoded for it.

    Raises:
        InputError: no folders of classes, one only, one without images, a name that may be a class or mean that there
            is none, images that cannot be read, options out of range.
    """
    found = _layout(place)
    inside = {one.name: images.find(one) for one in subfolders(found.train)}
    counts = {name: len(held) for name, held in inside.items()}
    none = rule.find(counts, marker, f"the folders of {shown(found.train)}")
    classes = [name for name in inside if name not in none]
    _require_classes(classes, place)
    more = [*found.unlabelled, *(found.train / name for name in sorted(none))]
    more += [Path(unlabelled).expanduser()] if unlabelled else []
    train = _labelled(found.train, classes, none)
    held_out = _labelled(found.test, classes, none) if found.test else None
    validation = _labelled(found.validation, classes, none) if found.validation else None
    wanted = pools.Wanted(size, channels, test, more, white, copies, group, skip_bad, place)
    data = pools.of_files(train, held_out, validation, classes, wanted)
    notes = [*found.notes, *rule.notes(counts, none, "images"), *rule.alike(classes), *_skipped(found)]
    return data._replace(notes=(*data.notes, *notes))


def _skipped(found: parts.Layout) -> list[Note]:
    """Files in the folders of the classes that are no images by their names."""
    places = [one for part in (found.train, found.test, found.validation) if part for one in subfolders(part)]
    tables = sorted(one.name for one in found.train.iterdir() if one.suffix.lower() in (".csv", ".tsv"))
    said = f"{some(tables)} beside the folders of the classes: --data listed --data-dir {shown(found.train)} reads it"
    return [*no_images(places), *([Note("left out", said)] if tables else [])]


def _class_folders(place: Path) -> list[Path]:
    return [one for one in subfolders(place) if not rule.is_sure(one.name)]


def _layout(place: Path) -> parts.Layout:
    # There may be a class of trains, with images and with folders in it.
    found = parts.layout(
        place,
        lambda one: bool(_class_folders(one)) and not (parts.name_of(one.name) == "train" and holds(one, ENDINGS)),
        "no class folders: sort its images into them, as in train, or call it unlabelled",
    )
    return found or parts.Layout(place, None, None, (), ())


def _require_classes(classes: Sequence[str], place: Path) -> None:
    if not classes or all(parts.name_of(name) for name in classes):
        raise InputError(f"{shown(place)}: no class folders: put the images of each class into a folder of its name")
    if any(parts.name_of(name) for name in classes) and (names := _shared(place, classes)):
        raise InputError(
            f"{shown(place)}: {some(classes)} hold the same folders, {some(sorted(names))}, and may be parts and no "
            "classes: name them train, test and validation"
        )
    if len(classes) == 1:
        raise InputError(
            f"{shown(place)}: one class folder only, {classes[0]!r}: name the folder that holds the class folders"
        )


def _shared(place: Path, classes: Sequence[str]) -> set[str]:
    """The folders, two at least, that are in the folders of all classes alike; none where they differ."""
    every = [{one.name for one in subfolders(place / name)} for name in classes if (place / name).is_dir()]
    alike = len(every) == len(classes) and all(one == every[0] for one in every)
    return every[0] if alike and len(every[0]) > 1 else set()


def _labelled(place: Path, classes: Sequence[str], none: Collection[str]) -> pools.Labelled:
    found_in: list[tuple[str, int, Path]] = []
    for one in subfolders(place):
        if one.name in none or (one.name not in classes and rule.is_sure(one.name)):
            continue
        if one.name not in classes:
            raise InputError(f"{shown(one)}: no class of this name to learn from: add it to train, or remove it")
        found = images.find(one)
        if not found:
            raise InputError(f"class {one.name!r} has no images: put some into {shown(one)}, or remove the folder")
        found_in += [(file.name, classes.index(one.name), file) for file in found]
    found_in.sort()  # by their names first: files that are numbered over all classes keep the order of the numbers
    return pools.Labelled([file for _, _, file in found_in], torch.tensor([label for _, label, _ in found_in]))
