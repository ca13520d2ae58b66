"""How a run is kept from being lost: flags of `metapl train` that change nothing of what is trained.

They are no part of the configuration, so a run may go on with others. Importing this file does not import torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from metapl.registry.errors import InputError
from metapl.training.options import option, require_within

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
"""Seconds in each unit of time."""


class Interval(NamedTuple):
    """Every so many steps, or every so many seconds; the other is 0, and both are for never."""

    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Keeping:
    """How a run is kept."""

    checkpoint_every: str = option(
        "1m", "Steps, or time such as 30s, 10m or 2h, between stored states; 0: only where it is stopped."
    )
    keep: int = option(0, "Stored states that stay when the run is over; until then the last two stay.", least=0)
    time_limit: str = option("", "Store the state and stop after so long, such as 90m or 2h; exit code 75.")
    spare: str = option("", "Folder for states that the run's own folder cannot take, as on a full disk.")

    def __post_init__(self) -> None:
        """Check every field."""
        require_within(self)
        _ = self.interval, self.limit  # they raise an error for what is none

    @property
    def interval(self) -> Interval:
        """Between two stored states."""
        text = self.checkpoint_every
        if text.isascii() and text.isdigit():
            return Interval(steps=int(text))
        return Interval(seconds=_seconds("checkpoint_every", text, "steps such as 500, or a time such as 10m"))

    @property
    def limit(self) -> float:
        """Seconds after which the run stops; infinity without a limit."""
        text = self.time_limit
        return _seconds("time_limit", text, "a time such as 90m or 2h") if text else float("inf")


def _seconds(name: str, text: str, wanted: str) -> float:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smh])", text, re.ASCII)
    if not found or not float(found[1]):
        raise InputError(f"{name} = {text} must be {wanted}", name)
    return float(found[1]) * UNITS[found[2]]
