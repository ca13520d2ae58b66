"""Whether a file is the one that was written: a changed bit of the weights would go unseen in what they predict."""

from __future__ import annotations

import hashlib
from pathlib import Path

from metapl.registry.errors import InputError


def of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): is the run complete?") from None


def require(path: Path, known: str, record: Path) -> None:
    """Compare a file with the checksum that another one gives, none if it is empty.

    Raises:
        InputError: it differs, or cannot be read.
    """
    if known and of(path) != known:
        raise InputError(
            f"{path} cannot be read (its SHA-256 is not that in {record.name}, so it has changed since): copy it again"
        )
