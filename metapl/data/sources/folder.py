"""One's own images, in a folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from metapl.data.formats import images
from metapl.data.formats.decode import ENDINGS
from metapl.data.formats.files import holds, shown, subfolders
from metapl.data.sources import pools
from metapl.data.sources.base import Dataset
from metapl.registry.errors import InputError


def is_folder(place: Path) -> bool:
    """Whether a folder has folders with images in them, or folders with such folders."""
    return place.is_dir() and any(
        holds(inner, ENDINGS) for outer in [place, *subfolders(place)] for inner in subfolders(outer)
    )


def folder(place: Path, *, size: int = 0, channels: int = 0, test: float = 0.2, unlabelled: str = "") -> Dataset:
    """Images in a folder for each class, `place/CLASS/…`, or, with a test set, `place/train/CLASS/…`.

    The test set is `place/test/CLASS/…`, or `val` or `validation` in place of `test`: the first that has folders of
    classes. Without one, a share of every class is held out. Images without labels are in a folder `unlabelled` or
    `unlabeled`, beside the classes or beside `train`, and in the place of the option: in folders at any depth, or in
    shards. They follow the labelled ones in the training pool.

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

    Raises:
        InputError: no folders of classes, one only, one without images, images that cannot be read, options out of
            range.
    """
    train, held_out = _layout(place)
    classes = [one.name for one in _class_folders(train)]
    _require_classes(classes, place)
    more = pools.unlabelled_below(place, train) + ([Path(unlabelled).expanduser()] if unlabelled else [])
    return pools.of_files(
        _labelled(train, classes),
        _labelled(held_out, classes) if held_out else None,
        classes,
        pools.Wanted(size, channels, test, more),
    )


def _class_folders(place: Path) -> list[Path]:
    return [one for one in subfolders(place) if one.name not in pools.UNLABELLED] if place.is_dir() else []


def _layout(place: Path) -> tuple[Path, Path | None]:
    """The folder of the training classes, and that of the test's."""
    train = place / "train"
    if not _class_folders(train) or holds(train, ENDINGS):  # there may be a class of trains
        return place, None
    present = [place / name for name in pools.TEST if (place / name).is_dir()]
    for one in present:
        if _class_folders(one):
            return train, one
    if present:
        raise InputError(
            f"{shown(present[0])}: no class folders: sort its images into them, as in train, or call it unlabelled"
        )
    return train, None


def _require_classes(classes: Sequence[str], place: Path) -> None:
    if not classes or set(classes) <= {"train", *pools.TEST}:
        raise InputError(f"{shown(place)}: no class folders: put the images of each class into a folder of its name")
    if len(classes) == 1:
        raise InputError(
            f"{shown(place)}: one class folder only, {classes[0]!r}: name the folder that holds the class folders"
        )


def _labelled(place: Path, classes: Sequence[str]) -> pools.Labelled:
    found_in: list[tuple[str, int, Path]] = []
    for one in _class_folders(place):
        if one.name not in classes:
            raise InputError(f"{shown(one)}: no class of this name to learn from: add it to train, or remove it")
        found = images.find(one)
        if not found:
            raise InputError(f"class {one.name!r} has no images: put some into {shown(one)}, or remove the folder")
        found_in += [(file.name, classes.index(one.name), file) for file in found]
    found_in.sort()  # by their names first: files that are numbered over all classes keep the order of the numbers
    return pools.Labelled([file for _, _, file in found_in], torch.tensor([label for _, label, _ in found_in]))
