"""Options: fields of a dataclass with their help text and their limits, of which the command line makes flags.

Importing this file does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any

from metapl.files.escape import visible
from metapl.registry import notation
from metapl.registry.errors import InputError


def option(default: Any, text: str, **limits: float) -> Any:
    """A field with its help text and its limits: `least` ≤ value ≤ `most`, or value > `above`."""
    return field(default=default, metadata={"help": text, "limits": limits})


def require_within(options: Any) -> None:
    """Check the limits of every field of a dataclass that `option` made.

    Raises:
        InputError: a value beyond them, or a text that no file can hold.
    """
    for one in fields(options):
        _require_within(one.name, getattr(options, one.name), one.metadata["limits"])


def _require_within(name: str, value: Any, limits: Mapping[str, float]) -> None:
    if isinstance(value, str) and ("\0" in value or not _encodable(value)):
        raise InputError(f"{name} = {visible(value)} cannot be written as UTF-8: give it a name of plain letters", name)
    wrong = ""
    if limits and isinstance(value, int) and value > notation.LARGEST:
        wrong = f"at most {notation.LARGEST}"
    elif isinstance(value, float) and not math.isfinite(value):
        wrong = "a finite number"
    elif "least" in limits and value < limits["least"]:
        wrong = f"at least {limits['least']}"
    elif "most" in limits and value > limits["most"]:
        wrong = f"at most {limits['most']}"
    elif "above" in limits and value <= limits["above"]:
        wrong = f"more than {limits['above']}"
    if wrong:
        raise InputError(f"{name} = {value} must be {wrong}", name)


def _encodable(text: str) -> bool:
    """Whether a file can hold it, which names of files with other bytes than UTF-8 are not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
