"""What installed packages add: constructors under an entry point group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from metapl.registry.errors import InputError

Constructor = Callable[..., Any]
"""What an entry point stands for: it takes options, and returns a value."""


class Registry(Mapping[str, Constructor]):
    """Our own constructors by name, and after them those that installed packages declare.

    A package is imported when its name is asked for, not before, so that a broken one harms nobody else. Our own
    names cannot be replaced.
    """

    def __init__(self, own: Mapping[str, Constructor], group: str) -> None:
        self._own = own
        self._group = group

    def _declared(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group) if point.name not in self._own}

    def __getitem__(self, name: str) -> Constructor:
        """The constructor of that name.

        Raises:
            KeyError: an unknown name.
            InputError: the package that declares it cannot be imported, or declares something else.
        """
        if name in self._own:
            return self._own[name]
        point = self._declared()[name]
        package = point.dist.name if point.dist else point.value
        try:
            found = point.load()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(
                f"{name!r} of package {package} cannot be loaded ({reason}): repair or remove it"
            ) from error
        if not callable(found):
            raise InputError(f"{name!r} of package {package} is {point.value}, which is not a constructor")
        return found

    def __iter__(self) -> Iterator[str]:
        """Our own names first."""
        yield from self._own
        yield from sorted(self._declared())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._own) + len(self._declared())
