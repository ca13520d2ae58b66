"""A folder that one process writes to: others are told so, and a process that dies leaves no lock behind."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from metapl.registry.errors import InputError


class Held:
    """A folder held by this process, from now on until `release`; a context manager.

    The lock is on the folder itself, so that no file tells of it. It ends with the process, however that ends. Where
    the file system knows no locks there is none.

    Raises:
        InputError: another process holds the folder, or it cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._named = folder
        try:
            self._place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise InputError(f"{folder} cannot be opened ({error.strerror}): name the folder of a run") from None
        try:
            fcntl.flock(self._place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(self._place)
                raise InputError(f"{folder} is in use by another process: wait for it, or stop it") from None

    @property
    def path(self) -> Path:
        """Where the folder is now: somebody may have renamed it."""
        with suppress(OSError):
            if os.path.samestat(os.stat(self._named), os.fstat(self._place)):
                return self._named
        with suppress(OSError):
            moved = Path(os.readlink(f"/proc/self/fd/{self._place}"))
            if os.path.samestat(os.stat(moved), os.fstat(self._place)):
                return moved
        return self._named

    def release(self) -> None:
        """Let others have it."""
        os.close(self._place)

    def __enter__(self) -> Held:
        """The folder is held already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others have it."""
        self.release()


def in_use(folder: Path) -> bool:
    """Whether a process holds a folder; False where that cannot be known."""
    try:
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(place, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(place)
    return False
