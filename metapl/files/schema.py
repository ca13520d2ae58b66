"""What JSON and TOML of unknown origin must look like: small checks that are put together, and one line when one fails.

A check takes a value and the words for where it stands, and gives the value.

Examples:
    >>> from metapl.files import schema
    >>> point = schema.table({"x": schema.whole(0, 9), "name": schema.text()})
    >>> point({"x": 3, "name": "a"}, "point")
    {'x': 3, 'name': 'a'}
    >>> point({"x": 30, "name": "a"}, "point")
    Traceback (most recent call last):
    metapl.registry.errors.InputError: point: x is 30, and must be a whole number from 0 to 9
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from metapl.registry.errors import InputError

Check: TypeAlias = Callable[[Any, str], Any]
"""`check(value, where)` gives the value, or raises InputError."""

LARGEST = 2**28
"""Bytes up to which a file is read: the counts of a thousand classes by six networks take 70 million."""

SHOWN = 60
"""Characters of a wrong value that a message shows."""


def wrong(value: Any, where: str, wanted: str) -> NoReturn:
    """Refuse a value.

    Raises:
        InputError: always.
    """
    try:
        given = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        given = f"a {type(value).__name__}"
    given = given if len(given) <= SHOWN else f"{given[:SHOWN]} …"
    raise InputError(f"{where} is {given}, and must be {wanted}")


def whole(least: int = 0, most: int = 2**63 - 1) -> Check:
    """A whole number in a range, and no boolean."""

    def check(value: Any, where: str) -> int:
        if type(value) is not int or not least <= value <= most:
            wrong(value, where, f"a whole number from {least} to {most}")
        return value

    return check


def number(value: Any, where: str) -> float:
    """A finite number, and no boolean."""
    if type(value) not in (int, float) or not -1e300 < value < 1e300:
        wrong(value, where, "a finite number")
    return value


def measured(value: Any, where: str) -> float:
    """A number that training may have brought to NaN or infinity, which JSON can write as null."""
    if value is None:
        return math.nan
    return value if type(value) is float else number(value, where)


def positive(value: Any, where: str) -> float:
    """A finite number above 0."""
    if number(value, where) <= 0:
        wrong(value, where, "a number above 0")
    return value


def flag(value: Any, where: str) -> bool:
    """True or false."""
    if type(value) is not bool:
        wrong(value, where, "true or false")
    return value


def text(most: int = 10_000) -> Check:
    """A text of at most so many characters."""

    def check(value: Any, where: str) -> str:
        if type(value) is not str or len(value) > most:
            wrong(value, where, f"a text of at most {most:,} characters")
        return value

    return check


def among(choices: Collection[str]) -> Check:
    """One of some texts."""

    def check(value: Any, where: str) -> str:
        if type(value) is not str or value not in choices:
            wrong(value, where, f"one of {', '.join(choices)}")
        return value

    return check


def any_of(value: Any, where: str) -> Any:
    """Whatever it is: nothing reads it but who knows what it should be."""
    del where
    return value


def listed(each: Check, least: int = 0, most: int | None = None) -> Check:
    """A list of so many of a kind."""

    def check(value: Any, where: str) -> list[Any]:
        if type(value) is not list or len(value) < least or (most is not None and len(value) > most):
            bounds = f"{least} or more" if most is None else f"{least}" if least == most else f"{least} to {most}"
            wrong(value, where, f"a list of {bounds}")
        return [each(one, f"{where}[{place}]") for place, one in enumerate(value)]

    return check


def table(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, others: bool = False) -> Check:
    """A table with these keys; others are refused unless they are allowed, and then left out of what is given."""
    known = {**required, **(optional or {})}

    def check(value: Any, where: str) -> dict[str, Any]:
        if type(value) is not dict:
            wrong(value, where, "a table of names and values")
        missing = [key for key in required if key not in value]
        if missing:
            raise InputError(f"{where} has no {missing[0]}")
        unknown = [key for key in value if key not in known]
        if unknown and not others:
            raise InputError(f"{where} has {unknown[0]!r}, which nothing here knows")
        return {key: known[key](value[key], f"{where}: {key}") for key in known if key in value}

    return check


def by_name(names: Check, each: Check) -> Check:
    """A table whose keys are data too."""

    def check(value: Any, where: str) -> dict[str, Any]:
        if type(value) is not dict:
            wrong(value, where, "a table of names and values")
        return {names(key, f"a key of {where}"): each(one, f"{where}: {key}") for key, one in value.items()}

    return check


REMEDY = "is the run complete?"
"""What a message advises unless a check says otherwise."""


def require_file(path: Path, remedy: str = REMEDY) -> None:
    """Refuse what reading would wait for or never end with, such as a pipe or a device.

    Raises:
        InputError: it is no file; the message ends with the remedy.
    """
    try:
        reason = "" if path.is_file() else "a file of another kind" if path.exists() else "no such file"
    except OSError as error:
        reason = str(error)
    if reason:
        raise InputError(f"{path} cannot be read ({reason}): {remedy}")


def load_text(path: Path, remedy: str = REMEDY) -> str:
    """A text file, UTF-8, of at most `LARGEST` bytes.

    Raises:
        InputError: it cannot be read; the message ends with the remedy.
    """
    require_file(path, remedy)
    try:
        size = path.stat().st_size
        if size <= LARGEST:
            return path.read_text(encoding="utf-8")
        reason = f"{size:,} bytes, more than a run writes"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise InputError(f"{path} cannot be read ({reason}): {remedy}")


def parse(content: str, where: str, remedy: str = REMEDY) -> Any:
    """What a JSON text holds.

    Raises:
        InputError: it is none, or nested beyond reason; the message ends with the remedy.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} cannot be read ({error}): {remedy}") from None


def load(path: Path, check: Check) -> Any:
    """What a JSON file holds, checked.

    Raises:
        InputError: it cannot be read, or is not what it must be.
    """
    return check(parse(load_text(path), str(path)), str(path))
