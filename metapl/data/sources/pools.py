"""From labelled images to a data set, for the sources that read one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl.data import groups
from metapl.data.augment import presets
from metapl.data.examples import Examples, Inputs, join, subset
from metapl.data.form import Form
from metapl.data.formats import images
from metapl.data.formats.damaged import damaged
from metapl.data.formats.decode import WHITE
from metapl.data.formats.files import Readable
from metapl.data.formats.grey import WHITES
from metapl.data.formats.moments import moments
from metapl.data.formats.white import guess_white
from metapl.data.notes import Note, some
from metapl.data.sources.base import Dataset
from metapl.data.sources.labelled_files import Labelled, Wanted, apart, copies_of
from metapl.registry.errors import InputError


class Part(NamedTuple):
    """Images `[images, channels, height, width]` and their class indices, −1 where nobody knows."""

    x: Examples
    y: Tensor


def with_unknown(part: Part, more: Examples) -> Part:
    """A part with more examples, whose classes nobody knows, at its end."""
    return Part(join(part.x, more), torch.cat([part.y, torch.full((len(more),), -1)]))


def _shape(files: Sequence[Readable], size: int, channels: int) -> images.Shape:
    if size < 0:
        raise InputError(f"size={size} must be a number of pixels, or 0 for a guess")
    if channels not in (0, 1, 3):
        raise InputError(f"channels={channels} must be 1 for grey or 3 for colours, or 0 for a guess")
    if size and channels:
        return channels, size, size
    guessed, height, width = images.guess_shape(files)
    return channels or guessed, size or height, size or width


def of_files(
    train: Labelled, test: Labelled | None, validation: Labelled | None, classes: Sequence[str], wanted: Wanted
) -> Dataset:
    """The data set of image files. Without a test set a share of every class is held out, the same for every seed.

    The training pool is the images to train on, then those of the validation set, then those without labels.

    Raises:
        InputError: options out of range, and what `hold_out`, `images.guess_shape` and `images.gather` refuse.
    """
    skipped: list[Readable] = []
    if wanted.skip_bad:
        skipped = damaged([file for one in (train, test, validation) if one for file in one.files])
        train = _without(train, skipped)
        test, validation = (one and _without(one, skipped) for one in (test, validation))
        sound = [file for place in wanted.unlabelled for file in _sound(place, skipped)]
        wanted = wanted._replace(unlabelled=sound)
    shape = _shape(train.files, wanted.size, wanted.channels)
    white, notes = _white(train.files, wanted.white)
    if skipped:
        notes.append(Note("left out", f"{len(skipped):,} files that are no images: {some(skipped)}"))
    parts = apart(train, test, validation, wanted)
    room = _room([parts.train, parts.test, validation], shape)
    load = partial(images.load, shape=shape, white=white, room=room)
    pool, given = Part(load(parts.train.files), parts.train.y), None
    held_out = Part(load(parts.test.files), parts.test.y)
    names = wanted.named([*parts.train.files, *(validation.files if validation else [])])
    if validation:
        given = len(pool.y) + torch.arange(len(validation.y))
        x = join(pool.x, load(validation.files))
        pool = Part(x, torch.cat([pool.y, validation.y]))
    notes += parts.notes
    if wanted.unlabelled:
        more = images.gather(wanted.unlabelled, shape, white, room=room)
        known = [held_out.x, *([subset(pool.x, given)] if given is not None else [])]
        files = [file for one in (parts.test, validation) if one for file in one.files]
        more, said = without_copies(more, known, files) if wanted.copies != "keep" else (more, [])
        pool, notes = with_unknown(pool, more.x), [*notes, *said]
        names += wanted.named(map(Path, more.names))
    details = {} if white == WHITE else {"white": white}
    data = of_images(pool, held_out, classes, **details)
    company = groups.extended(parts.groups, len(pool.y))
    data = data._replace(validation=given, groups=company, names=names)
    return data._replace(notes=tuple(notes), skip_bad=wanted.skip_bad)


def _room(parts: Sequence[Labelled | None], shape: images.Shape) -> int:
    """The bytes that each of some parts may have in memory: all that images may have, or none."""
    wanted = sum(len(part.files) for part in parts if part) * math.prod(shape)
    return images.IN_MEMORY if wanted <= images.IN_MEMORY else 0


def without_copies(
    more: Inputs, known: Sequence[Examples], files: Sequence[Readable] = ()
) -> tuple[Inputs, list[Note]]:
    """Examples without those that are in the test or the validation set too, and what is to be said of it.

    What is in memory is compared as it is stored; else the bytes of the files are, where these are known.

    Args:
        more: examples without labels.
        known: those of the test and of the validation set.
        files: of these, if they are files.
    """
    if isinstance(more.x, Tensor) and all(isinstance(one, Tensor) for one in known):
        taken = [digest for one in known if isinstance(one, Tensor) for digest in groups.digests(one)]
        copied: Tensor | None = groups.shared(groups.digests(more.x), taken)
    else:
        copied = copies_of(files, [Path(name) for name in more.names]) if files else None
    if copied is None:
        return more, [Note("copies", "nobody has compared the images without labels with the test")]
    if not copied.any():
        return more, []
    text = f"{int(copied.sum()):,} examples without labels that are in the test or validation set too"
    kept = (~copied).nonzero()[:, 0]
    return Inputs([more.names[place] for place in kept.tolist()], subset(more.x, kept)), [Note("left out", text)]


def _without(labelled: Labelled, skipped: Sequence[Readable]) -> Labelled:
    bad = set(map(str, skipped))
    kept = [place for place, file in enumerate(labelled.files) if str(file) not in bad]
    return Labelled([labelled.files[place] for place in kept], labelled.y[torch.tensor(kept, dtype=torch.int64)])


def _sound(place: Path, skipped: list[Readable]) -> list[Path]:
    """The images below a folder that can be read; those that cannot are added to what is skipped."""
    if not place.is_dir():
        return [place]
    found = images.find(place)
    bad = damaged(found)
    skipped += bad
    return [file for file in found if file not in bad]


def _white(files: Sequence[Readable], wanted: int) -> tuple[int, list[Note]]:
    if wanted:
        if wanted not in WHITES:
            raise InputError(f"white={wanted} must be {', '.join(map(str, WHITES))}, or 0 for a guess")
        return wanted, []
    white, most = guess_white(files)
    said = f"in files of 16 bits white is {white}, since no level exceeds {most}: white={WHITE} if it is not"
    return white, [Note("levels", said)] if white < WHITE else []


def of_images(pool: Part, test: Part, classes: Sequence[str], **details: Any) -> Dataset:
    """The data set of a training pool and a test set; the statistics are those of the pool."""
    mean, std = moments(pool.x)
    form = Form("images", tuple(pool.x.shape[1:]), tuple(classes), {"mean": mean, "std": std, **details})
    return Dataset(*pool, *test, presets.default(form), form)
