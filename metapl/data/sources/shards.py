"""One's own images, in tar archives with their class indices."""

from __future__ import annotations

from pathlib import Path

import torch

from metapl.data.formats import shards as archives
from metapl.data.formats.files import holds, shown, subfolders
from metapl.data.sources import parts, pools
from metapl.data.sources.base import Dataset
from metapl.registry.errors import InputError


def is_shards(place: Path) -> bool:
    """Whether a place is a `.tar` file, or a folder with some, or with some in a folder `train`."""
    if place.is_file():
        return place.suffix.lower() == ".tar"
    inside = [one for one in subfolders(place) if parts.name_of(one.name) == "train"] if place.is_dir() else []
    return place.is_dir() and any(holds(folder, (".tar",)) for folder in (place, *inside))


def shards(  # noqa: PLR0913 - one option a parameter
    place: Path,
    *,
    size: int = 0,
    channels: int = 0,
    test: float = 0.2,
    unlabelled: str = "",
    white: int = 0,
    copies: str = "auto",
    group: str = "",
    skip_bad: bool = False,
) -> Dataset:
    """Images in webdataset's layout: `.tar` files with `KEY.jpg` and its class index, 0, 1, 2, …, in `KEY.cls`.

    An image without a `.cls` has no label. Where there is a folder `train`, the test set, the validation set and images
    without labels are in folders beside it, called as those of `folder` are; without a test set a share of every class
    is held out. Images without labels may also be in the place of the option.

    Shards are in the order of their paths, images in the order of the archive, and classes are named by their index.
    See `metapl.data.formats.shards` for what an index of them costs, and `folder` for the rest.

    Args:
        place: a shard or a folder of shards.
        size: as of `folder`.
        channels: as of `folder`.
        test: as of `folder`.
        unlabelled: as of `folder`.
        white: as of `folder`.
        copies: as of `folder`.
        group: as of `folder`.
        skip_bad: as of `folder`.

    Raises:
        InputError: archives that cannot be read, a class between 0 and the last one without an image, fewer than two
            classes, a test image without a label.
    """
    found = parts.layout(place, lambda _: True, "") if place.is_dir() else None
    found = found or parts.Layout(place, None, None, (), ())
    labelled = _labelled(found.train)
    known = set(labelled.y.tolist()) - {-1}
    count = max(known, default=-1) + 1
    if count < 2:
        raise InputError(
            f"{shown(found.train)}: {count} classes, two at least are needed: write KEY.cls beside KEY.jpg"
        )
    if len(known) < count:
        absent = next(label for label in range(count) if label not in known)
        raise InputError(f"class '{absent}' has no images in {shown(found.train)}: number the classes without gaps")
    more = [*found.unlabelled, *([Path(unlabelled).expanduser()] if unlabelled else [])]
    held_out = _test(found.test, count) if found.test else None
    validation = _test(found.validation, count) if found.validation else None
    classes = [str(label) for label in range(count)]
    wanted = pools.Wanted(size, channels, test, more, white, copies, group, skip_bad, place)
    data = pools.of_files(labelled, held_out, validation, classes, wanted)
    return data._replace(notes=(*data.notes, *found.notes))


def _labelled(place: Path) -> pools.Labelled:
    members = archives.read(archives.find(place))
    if not members:
        raise InputError(f"{shown(place)}: no .tar files below it: name a folder of shards")
    return pools.Labelled(members, torch.tensor([member.label for member in members]))


def _test(place: Path, count: int) -> pools.Labelled:
    labelled = _labelled(place)
    for member, label in zip(labelled.files, labelled.y.tolist(), strict=True):
        if not 0 <= label < count:
            raise InputError(f"{shown(member)}: its label is not among those of train: give it one of 0 … {count - 1}")
    return labelled
