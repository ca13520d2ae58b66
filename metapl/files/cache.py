"""Where what can be made again is kept."""

from __future__ import annotations

import os
from pathlib import Path


def folder(kind: str) -> Path:
    """`metapl/KIND` below XDG_CACHE_HOME, else below `~/.cache`. It may be removed at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache") / "metapl" / kind
