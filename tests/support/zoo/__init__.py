"""Modules of every kind that people train, each a few numbers wide, with what metapl must make of it."""

from __future__ import annotations

from zoo import drawn, hooked, inputs, kept, layers, norms, stopped
from zoo.entry import BATCH, CLASSES, Entry

ZOO: dict[str, Entry] = {
    **layers.ENTRIES,
    **inputs.ENTRIES,
    **norms.ENTRIES,
    **stopped.ENTRIES,
    **hooked.ENTRIES,
    **drawn.ENTRIES,
    **kept.ENTRIES,
}

__all__ = ["BATCH", "CLASSES", "ZOO", "Entry"]
