"""The keys of a run: one for each purpose, all of the seed."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from metapl.core import rng
from metapl.core.types import Key

NUMBERED = ("supervised", "pseudo-labels", "uda", "mpl", "finetune", "reduced", "fixed")
"""The phases whose keys are numbered; a phase of another name has its key from the name."""


class Keys(NamedTuple):
    """One key for each purpose, so that runs that differ in one thing share all the others."""

    root: Key
    split: Key
    batches: Key

    def of(self, phase: str) -> Key:
        """The key of a phase, by its name."""
        if phase in NUMBERED:
            return rng.fold_in(self.root, 2 + NUMBERED.index(phase))
        return rng.fold_in(self.root, 2**32 + zlib.crc32(phase.encode()))


def keys_of(seed: int) -> Keys:
    """The keys of a run with a seed."""
    root = rng.key(seed)
    return Keys(root, *rng.split(root, 2))
