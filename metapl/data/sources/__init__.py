"""Data sources: each a function that returns a `Dataset`. A new one is a file here and a line in `SOURCES`."""

from collections.abc import Callable

from metapl.data.sources.base import Dataset
from metapl.data.sources.digits import digits
from metapl.data.sources.moons import moons

SOURCES: dict[str, Callable[..., Dataset]] = {"digits": digits, "moons": moons}

__all__ = ["SOURCES", "Dataset", "digits", "moons"]
