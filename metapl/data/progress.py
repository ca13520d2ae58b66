"""How far a long reading is: told to whoever listens, such as the command line, and to nobody else.

Examples:
    >>> from metapl.data import progress
    >>> with progress.listening(lambda what, done, total: print(what, done, total)):
    ...     for done in progress.through(range(3), 3, "reading"):
    ...         pass
    reading 1 3
    reading 2 3
    reading 3 3
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

Listener: TypeAlias = Callable[[str, int, int], object]
"""`listener(what, done, total)`."""

_T = TypeVar("_T")

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within the block the listener is told of all reading in this thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def through(parts: Iterable[_T], total: int, what: str, size: Callable[[_T], int] = lambda _: 1) -> Iterator[_T]:
    """The parts, one after another; the listener hears of each when the next one is asked for.

    Args:
        parts: of what is read.
        total: the sum of their sizes.
        what: is done, in a word or two.
        size: of a part.
    """
    done = 0
    for part in parts:
        yield part
        done += size(part)
        tell(what, done, total)


def tell(what: str, done: int, total: int) -> None:
    """Tell the listener, if there is one, that so much is done; see `through`."""
    if listener := _listener.get():
        listener(what, done, total)
