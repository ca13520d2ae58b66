"""What torchrun says of the processes that it has started, or whoever sets `RANK` and `WORLD_SIZE` in its place."""

from __future__ import annotations

import os

from metapl.registry.errors import InputError


def processes() -> int:
    """How many processes share the work.

    Raises:
        InputError: `WORLD_SIZE` is no whole number from 1 on.
    """
    return _read("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this one is, from 0 on.

    Raises:
        InputError: `RANK` is no whole number from 0 on.
    """
    return _read("RANK", 0)


def restarts() -> int:
    """How often they have been started again.

    Raises:
        InputError: `TORCHELASTIC_RESTART_COUNT` is no whole number from 0 on.
    """
    return _read("TORCHELASTIC_RESTART_COUNT", 0)


def _read(name: str, least: int) -> int:
    """A variable of the environment, or the least value that it may have."""
    text = os.environ.get(name, str(least))
    if not text.isdecimal() or int(text) < least:
        raise InputError(
            f"the environment has {name} = {text!r}, which must be a whole number from {least} on: unset it"
        )
    return int(text)
