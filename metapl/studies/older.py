"""A study that an older version began: what it leaves open is what was the default then."""

from __future__ import annotations

from pathlib import Path

from metapl.files import storage
from metapl.studies.checks import Given
from metapl.studies.specification import Study
from metapl.training import automatic

BEFORE: Given = {"model": "mlp", "method": "mpl", "grad": "exact", "clip": 5.0, **automatic.BEFORE}
"""What versions up to 0.2.0 had as defaults, where they are others today."""


def as_begun(about: Study, runs: Path) -> Study:
    """The study with the defaults of the version that made its finished runs.

    Runs that differ in their defaults cannot be compared, so the missing ones are made as the others were. The values
    are those of `BEFORE`, and not those of the files, which may come from a stranger.

    Args:
        about: the study, as it is asked for.
        runs: the folder of its finished runs; it need not be there.
    """
    began = any(_is_older(path) for path in sorted(runs.glob("*.json")))
    return about._replace(common={**BEFORE, **about.common}) if began else about


def _is_older(path: Path) -> bool:
    """Whether a run lacks a field that runs have today; a file that cannot be read is left to who reads it."""
    try:
        found = storage.parse_json(storage.read_text(path))
    except (OSError, ValueError):
        return False
    config = found.get("config") if isinstance(found, dict) else None
    return isinstance(config, dict) and not automatic.BEFORE.keys() <= config.keys()
