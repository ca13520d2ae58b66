r"""Files by the names that people give them in a table, in any spelling.

Examples:
    >>> from pathlib import Path
    >>> from metapl.data.formats.names import Names, above
    >>> names = Names([Path("photos/a/1.JPG"), Path("photos/b/1.JPG"), Path("photos/b/2.JPG")], Path("photos"))
    >>> print(names.find(r"a\1.jpg"), names.find("2"), names.find("1.jpg"), names.find("c/2.jpg"))
    photos/a/1.JPG photos/b/2.JPG None None
    >>> above(["/home/me/a/1.jpg", "/home/me/b/2.jpg"])
    ('home', 'me')
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


class Names:
    """Files below a folder by every name that only one of them has.

    A name is the path below the folder or the last part of it, with the ending or without. The two slashes are alike,
    and so are small and large letters where they make no difference between files.
    """

    def __init__(self, files: Sequence[Path], folder: Path) -> None:
        ways = [(file, _ways(_parts(file.relative_to(folder).as_posix()))) for file in files]
        self._exact = _owners(ways)
        self._folded = _owners([(file, {name.casefold() for name in names}) for file, names in ways])

    def find(self, name: str, above: Sequence[str] = ()) -> Path | None:
        """The file of a name, which may begin with some folders that are not there, see `above`."""
        parts = _parts(name)
        tails = ["/".join(parts[first:]) for first in range(len(above) + 1)]
        found = (self._exact.get(tail) or self._folded.get(tail.casefold()) for tail in tails)
        return next(filter(None, found), None)


def _owners(ways: Sequence[tuple[Path, set[str]]]) -> dict[str, Path]:
    counts = Counter(name for _, names in ways for name in names)
    return {name: file for file, names in ways for name in names if counts[name] == 1}


def above(names: Sequence[str]) -> tuple[str, ...]:
    """The folders with which all names begin, such as those of another machine."""
    levels = zip(*(_parts(name)[:-1] for name in names if name), strict=False)
    return tuple(level[0] for level in itertools.takewhile(lambda level: len(set(level)) == 1, levels))


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]


def _ways(parts: Sequence[str]) -> set[str]:
    whole, last = "/".join(parts), parts[-1]
    return {whole, last, _bare(whole), _bare(last)}


def _bare(name: str) -> str:
    """Without the ending."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and "/" not in ending and stem.rpartition("/")[2] else name
