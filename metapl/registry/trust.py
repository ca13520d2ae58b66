"""Code that a file asks for: it is imported only if the user says so.

A run folder, an exported model, a file of `--config` and a study are data, wherever they come from. What they name of
metapl's own is known; a network of timm or of a package, or an estimator that a package declares, is code, and is
refused without `--trust-code` (`trust_code=True` in Python). With it, what will be imported is said first. What is
typed on the command line is the user's own word, and needs none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any

from metapl.registry.errors import InputError

LOG = logging.getLogger("metapl")
"""Where it is said what was imported."""

ESTIMATORS = "metapl.estimators"
"""The group of entry points under which packages declare estimators."""


def require(values: Mapping[str, Any], where: str, trust_code: bool) -> None:
    """Look for code in what a file says, tables and lists in it included.

    Args:
        values: of the file.
        where: the file, for messages.
        trust_code: whether it may be imported; then the log `metapl` has a warning of what will be.

    Raises:
        InputError: there is some, and it may not.
    """
    for key, text in _texts(values):
        imported = _imported(key, text)
        if imported and not trust_code:
            raise InputError(
                f"{where}: {key} = {text!r} {imported}: read that code, and give --trust-code (in Python "
                "trust_code=True) to run it"
            )
        if imported:
            LOG.warning("%s: %s = %r %s", where, key, text, imported)


def _texts(values: Any) -> Iterator[tuple[str, str]]:
    """Every text with the keys that lead to it, however deep it stands."""
    waiting = [("", values)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(f"{key}.{name}" if key else str(name), one) for name, one in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(key, one) for one in value]
        elif isinstance(value, str):
            yield key, value


def _imported(key: str, text: str) -> str:
    """What a value has imported, in words; empty for nothing."""
    kind, _, rest = text.partition(":")
    if kind == "module":
        place, _, attribute = rest.partition(",")[0].partition(":")
        return f"imports {place} and calls its {attribute or 'constructor'}"
    if kind == "timm":
        return "has timm make a network, for which it may read files and the network"
    if "grad" not in key.split("."):
        return ""  # before the look at what is installed, which reads a file of every package
    packages = [point.value for point in entry_points(group=ESTIMATORS) if point.name == kind]
    return f"imports {packages[0]}" if packages else ""
