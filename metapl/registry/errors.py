"""The one exception that means: the input is wrong, and here is the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST = 1000
"""Letters of a message; what is longer holds something long out of a file, whose middle nobody misses."""


class InputError(ValueError):
    """Bad input. The message is one line that says what is wrong, where, and what to do; the CLI exits with code 2.

    A message speaks of fields of the configuration by their names, as in "batch = 0 must be at least 1". The command
    line writes the `fields` of the error as flags instead: "--batch 0 must be at least 1".
    """

    def __init__(self, message: str, *fields: str) -> None:
        self.fields = fields
        half = MOST // 2
        super().__init__(message if len(message) <= MOST else f"{message[:half]} … {message[-half:]}")


def unknown(what: str, name: str, choices: Iterable[str]) -> InputError:
    """The error for a name that is not among `choices`, with the nearest one as a suggestion."""
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {what} {name!r}: {hint}choose from {', '.join(choices)}")
