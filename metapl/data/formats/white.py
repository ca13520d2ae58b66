"""What is white in image files of more than 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from metapl.data.formats.decode import WHITE, brightest, header
from metapl.data.formats.files import Readable
from metapl.data.formats.grey import WHITES
from metapl.data.formats.images import SAMPLE, evenly


def guess_white(files: Sequence[Readable]) -> tuple[int, int]:
    """The level of white in files of 16 bits, by up to 256 files: the least of 8, 10, … 16 bits that holds all levels.

    Returns:
        White, and the largest level; both are `WHITE` where no file has 16 bits.

    Raises:
        InputError: one of them is no image.
    """
    some = [files[place] for place in evenly(len(files), SAMPLE).tolist()]
    with ThreadPoolExecutor() as pool:
        deep = [file for file, one in zip(some, pool.map(header, some), strict=True) if one.deep]
        most = max(pool.map(brightest, deep), default=WHITE)
    return next((white for white in WHITES if most <= white), WHITE), most
