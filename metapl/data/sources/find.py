"""From `--data NAME:key=value,…` or `--data PATH` to the data: where the files are, and whether they are whole.

A *name* asks for a published data set, so its files must be the published ones: those with known checksums are checked
before they are read, unless that would take seconds. A *path* asks for whatever lies there in a layout that some source
reads, so that nothing is compared; `metapl data check` does it for both.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from metapl.data.formats import archives
from metapl.data.formats.decode import ENDINGS, HEIC
from metapl.data.formats.files import holds
from metapl.data.sources import SOURCES, STORED, fetch
from metapl.data.sources.base import Dataset, Known, Stored
from metapl.registry import notation
from metapl.registry.errors import InputError, unknown

VARIABLE = "METAPL_DATA"
"""Environment variable with folders to look in, separated as in PATH."""

SYSTEM = Path("/usr/share/datasets")
"""Where Debian's packages put data sets."""

CHECKED = 10**9
"""Bytes up to which the files of a data set are checked before they are read, about two seconds."""


def load(text: str, data_dir: str = "") -> Dataset:
    """The data set that `text` names, or that lies where it points.

    Args:
        text: `NAME:key=value,…` with a name in `SOURCES`, else `PATH:key=value,…`, whose source is the first of
            `STORED` that recognises it.
        data_dir: the folder that holds the data of a name, or is it; then the folders of METAPL_DATA and
            /usr/share/datasets are looked through. What needs no files ignores it.

    Raises:
        InputError: an unknown name, nothing at the path, nothing found, a wrong option, a damaged file.
    """
    name = text.partition(":")[0]
    if name not in SOURCES:
        path, options = split(text)
        path = archives.opened(path)
        return notation.build(f"{_kind(path)}:{options}", SOURCES, "data", path)
    if name not in STORED:
        return notation.build(text, SOURCES, "data")
    notation.parse(text, SOURCES, "data")  # a wrong option is reported before a missing file
    place = require(name, data_dir)
    files = there(STORED[name], place)
    if sum(path.stat().st_size for path in files.values()) <= CHECKED:
        for known, path in files.items():
            require_published(known, path)
    return notation.build(text, SOURCES, "data", place)


def find(name: str, data_dir: str = "") -> Path | None:
    """Where the files of a name in `STORED` are; None if nowhere.

    Raises:
        InputError: `data_dir` does not exist.
    """
    one, given = STORED[name], _given(data_dir)
    if given and (_recognises(one, given) or (given.is_dir() and there(one, given))):
        return given
    places = [place for root in _roots(data_dir) for place in (root, *(root / folder for folder in one.folders))]
    # What anybody's own data may look like is not looked for where nobody has pointed to.
    return next((place for place in places if _recognises(one, place)), None) if one.folders else None


def require(name: str, data_dir: str = "") -> Path:
    """As `find`.

    Raises:
        InputError: nowhere.
    """
    place = find(name, data_dir)
    if place is not None:
        return place
    if not STORED[name].folders:
        raise InputError(f"--data {name} needs to know where: give --data-dir PLACE, or --data PLACE alone")
    remedy = "name the folder that holds it with --data-dir"
    remedy += f", or get it with metapl data get {name}" if STORED[name].archives else ""
    raise InputError(f"--data {name} is not in {', '.join(map(str, _roots(data_dir)))}: {remedy}")


def recognise(path: Path) -> str | None:
    """The name of the first source in `STORED` that reads what lies there; None if none does."""
    return next((name for name, one in STORED.items() if _recognises(one, path)), None)


def locate(text: str, data_dir: str = "") -> tuple[str, Path]:
    """The name of the source in `STORED` and the place that `text` means, which is as for `load`.

    Raises:
        InputError: an unknown name, nothing at the path, nothing found.
    """
    name = text.partition(":")[0]
    if name in STORED:
        return name, require(name, data_dir)
    path = archives.opened(split(text)[0])
    return _kind(path), path


def there(one: Stored, place: Path) -> dict[Known, Path]:
    """The files with known checksums that are in a folder."""
    found = {}
    for known in one.files:
        paths = [path for path in (place / known.name, place / f"{known.name}.gz") if path.is_file()]
        if paths:
            found[known] = paths[0]
    return found


def is_published(known: Known, path: Path) -> bool:
    """Whether a file is the published one."""
    return fetch.verify(path, known.digest, inside=True)


def require_published(known: Known, path: Path) -> None:
    """As `is_published`.

    Raises:
        InputError: it is not.
    """
    if not is_published(known, path):
        kind, _, digits = known.digest.partition(":")
        raise InputError(
            f"{path} differs from the published file ({kind} {digits}): download it again, or give the folder of "
            "your own files as --data PATH"
        )


def _recognises(one: Stored, place: Path) -> bool:
    with suppress(OSError):  # a folder that nobody may read
        return one.recognise(place)
    return False


def _given(data_dir: str) -> Path | None:
    if not data_dir:
        return None
    folder = os.path.expanduser(data_dir)
    if not os.path.exists(folder):
        raise InputError(f"--data-dir {data_dir} does not exist: name the folder that holds the data")
    return Path(folder)


def _roots(data_dir: str) -> list[Path]:
    given, named = _given(data_dir), filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    return [*([given] if given else []), *(Path(folder).expanduser() for folder in named), SYSTEM]


def split(text: str) -> tuple[Path, str]:
    """The path and the options of `PATH:key=value,…`; a path that exists may have colons.

    Raises:
        InputError: there is no such path.
    """
    ends = [len(text), *(at for at in range(len(text) - 1, 0, -1) if text[at] == ":")]
    for end in ends:
        path = os.path.expanduser(text[:end])
        if os.path.exists(path):
            return Path(path), text[end + 1 :]
    path = text.partition(":")[0]
    if os.sep in path or "." in path or path.startswith("~"):  # no name of a source has a dot
        raise InputError(f"--data {path}: there is no such file or folder: correct the path")
    raise unknown("data", path, SOURCES)


def called(text: str) -> str:
    """What data is called in a title: `photos:size=32` for `/home/me/photos/:size=32`."""
    place, colon, options = text.partition(":")
    return f"{Path(place).name or place}{colon}{options}"


def _kind(path: Path) -> str:
    kind = recognise(path)
    if kind is None and path.is_dir() and any(one.suffix.lower() in HEIC for one in path.rglob("*")):
        raise InputError(f"--data {path}: photographs as .heic: pip install 'metapl[heic]' reads them")
    if kind is None and path.is_dir() and holds(path, ENDINGS):
        raise InputError(
            f"--data {path}: images without labels: write labels.csv beside them, with the columns filename and label, "
            "or put those of each class into a folder of its name"
        )
    if kind is None:
        raise InputError(
            f"--data {path}: nothing there that metapl reads: give the folder or file itself, or one of "
            f"{', '.join(STORED)} with --data-dir {path}"
        )
    return kind
