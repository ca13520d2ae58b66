"""An import of an old place ends in one line that names the new one.

Examples:
    >>> import metapl.tree
    Traceback (most recent call last):
    ImportError: metapl.tree moved to metapl.core.tree in 0.2.0, see docs/what_moved.md
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

from metapl.registry.old_names import GONE, MODULES, NAMES

SHOWN = 4
"""Names that have left their module, or are called otherwise in it, that one line shows."""


def line(old: str) -> str:
    """What an import of the old place says."""
    if old in GONE:
        return f"{old} is gone in 0.2.0: {GONE[old]}, see docs/what_moved.md"
    apart = [_apart(name, old) for name in NAMES if name.rpartition(".")[0] == old]
    there = f" ({', '.join([*apart[:SHOWN], *(['…'] if apart[SHOWN:] else [])])})" if apart else ""
    return f"{old} moved to {(MODULES | NAMES)[old]} in 0.2.0{there}, see docs/what_moved.md"


def knows(old: str) -> bool:
    """Whether a dotted name is a place of version 0.1.0 that is elsewhere now, or gone."""
    return old in MODULES or old in NAMES or old in GONE


def _apart(name: str, module: str) -> str:
    """Where a name went that is not found under the same name in the new place of its module."""
    home, _, new = NAMES[name].rpartition(".")
    old = name.rpartition(".")[2]
    if home != MODULES.get(module, module):
        return f"{old} is {NAMES[name]}"
    return f"{old} is {new}"


class _Finder:
    """The last on `sys.meta_path`: finds nothing, and says of an old place where its content went."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:  # noqa: ARG004
        if knows(fullname):
            raise ImportError(line(fullname), name=fullname)


def install() -> None:
    """From now on an import of an old place raises an `ImportError` with its line; done by `import metapl`."""
    if _Finder not in sys.meta_path:
        sys.meta_path.append(_Finder)
