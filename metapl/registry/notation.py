"""`NAME:key=value,…`: the one notation for all that is selectable.

The options of a name are the keyword-only parameters of its constructor, and the type of an option is the type of
its default, so a new estimator, model or data source is selectable without a line of parsing.

Examples:
    >>> from metapl.registry import notation
    >>> def square(*, side: float = 1.0):
    ...     return side**2
    >>> notation.build("square:side=3", {"square": square}, "shape")
    9.0
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from metapl.registry.errors import InputError, unknown

LARGEST = 2**53
"""Of whole numbers: beyond it a float64 tells no two apart, and no size or count is meant."""


def options(constructor: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only parameters of a constructor and their defaults."""
    parameters = inspect.signature(constructor).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _read(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        return {"true": True, "false": False}[text.lower()]
    if isinstance(default, tuple):
        parts = tuple(_read(part, default[0]) for part in text.split("/"))
        return parts if len(parts) == len(default) else _refuse(text)
    value = type(default)(text)
    wrong = abs(value) > LARGEST if isinstance(value, int) else isinstance(value, float) and not math.isfinite(value)
    return _refuse(text) if wrong else value


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def convert(text: str, default: Any, where: str) -> Any:
    """Read an option's value as the type of its default; a tuple is written 0.9/0.99."""
    try:
        return _read(text, default)
    except (KeyError, ValueError):
        kind = {
            bool: "true or false",
            int: "a whole number up to 2⁵³",
            float: "a number",
            tuple: "as many numbers, split by '/'",
        }
        raise InputError(f"{where}={text}: expected {kind[type(default)]}, as in {where}={_write(default)}") from None


def _write(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(str(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse(text: str, registry: Mapping[str, Callable[..., Any]], what: str) -> tuple[str, dict[str, Any]]:
    """The name and options in `NAME:key=value,…`.

    Raises:
        InputError: an unknown name or option (with the nearest one), or a value of the wrong type.
    """
    name, _, rest = text.partition(":")
    if name not in registry:
        raise unknown(what, name, registry)
    known = options(registry[name])
    given = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{what} option {item!r} of {name!r} has no value: write {name}:{item}=VALUE")
        if key not in known:
            raise (
                unknown(f"option of {what} {name!r}", key, known)
                if known
                else InputError(f"{what} {name!r} takes no options, got {key!r}: write {name}")
            )
        given[key] = convert(value, known[key], f"{name}:{key}")
    return name, given


def bind(text: str, registry: Mapping[str, Callable[..., Any]], what: str) -> Callable[..., Any]:
    """The constructor that `text` names with its options, which are read once; a `ValueError` becomes an `InputError`.

    Raises:
        InputError: as `parse`.
    """
    name, given = parse(text, registry, what)

    def call(*args: Any, **changed: Any) -> Any:
        try:
            return registry[name](*args, **{**given, **changed})
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{what} {text!r}: {error}") from error

    return call


def build(text: str, registry: Mapping[str, Callable[..., Any]], what: str, *args: Any) -> Any:
    """Call the constructor that `text` names with `args` and its options; see `bind`."""
    return bind(text, registry, what)(*args)


def signature(name: str, constructor: Callable[..., Any]) -> str:
    """`NAME:key=default,…`, as it may be typed."""
    listed = ",".join(f"{key}={_write(default)}" for key, default in options(constructor).items())
    return f"{name}:{listed}" if listed else name
