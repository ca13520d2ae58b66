"""A study that an older version began: what it leaves open is what was the default then."""

from __future__ import annotations

from pathlib import Path

from metapl.files import storage
from metapl.studies.checks import Given
from metapl.studies.specification import Study
from metapl.training import automatic

BEFORE: Given = {"model": "mlp", "method": "mpl", "grad": "exact", "clip": 5.0, **automatic.BEFORE}
"""What versions up to 0.2.0 had as defaults, where they are others today."""

AGES: tuple[tuple[str, Given], ...] = (("guide", BEFORE), ("embed", {"embed": automatic.NONE}))
"""The oldest first: a field that the runs of an age lack, and what its defaults were, where they are others today."""


def as_begun(about: Study, runs: Path) -> Study:
    """The study with the defaults of the version that made its finished runs.

    Runs that differ in their defaults cannot be compared, so the missing ones are made as the others were. The values
    are those of `AGES`, and not those of the files, which may come from a stranger.

    Args:
        about: the study, as it is asked for.
        runs: the folder of its finished runs; it need not be there.
    """
    lacking = {field for path in sorted(runs.glob("*.json")) for field in _lacking(path)}
    defaults = next((defaults for field, defaults in AGES if field in lacking), None)
    return about if defaults is None else about._replace(common={**defaults, **about.common})


def _lacking(path: Path) -> set[str]:
    """The fields of `AGES` that a run lacks; a file that cannot be read is left to who reads it."""
    try:
        found = storage.parse_json(storage.read_text(path))
    except (OSError, ValueError):
        return set()
    config = found.get("config") if isinstance(found, dict) else None
    return {field for field, _ in AGES if field not in config} if isinstance(config, dict) else set()
