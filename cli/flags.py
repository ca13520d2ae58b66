"""Flags that are made from the fields of the configuration."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_type_hints

import typer

from metapl.registry.errors import InputError
from metapl.training.config import flag

Command: TypeAlias = Callable[..., None]


def with_flags(fields: Sequence[Field[Any]]) -> Callable[[Command], Command]:
    """Add a flag for every field to those that a command has already; a flag that is not given is None."""
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[type(field.default) | None, _option(field)],
        )
        for field in fields
    ]

    def decorate(function: Command) -> Command:
        signature = inspect.signature(function).parameters.values()
        hints = get_type_hints(function, include_extras=True)
        own = [p.replace(annotation=hints[p.name]) for p in signature if p.kind is not inspect.Parameter.VAR_KEYWORD]
        parameters = own + options
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {p.name: p.annotation for p in parameters}
        return function

    return decorate


def _option(field: Field[Any]) -> Any:
    names = [flag(field.name)]
    if isinstance(field.default, bool):
        names = [f"{flag(field.name)}/--no-{field.name.replace('_', '-')}"]
    shown = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return typer.Option(*names, help=f"{field.metadata['help']} \\[default: {shown or 'none'}]", show_default=False)


def spoken(error: InputError) -> str:
    """The message of an error with flags in place of the names of its fields."""
    text = str(error)
    for name in error.fields:
        text, count = re.subn(rf"(?<![\w./-]){name} = ", f"{flag(name)} ", text)
        if not count:
            text = re.sub(rf"(?<![\w./-]){name}(?![\w./-])", flag(name), text, count=1)
    return text


Preset = Annotated[
    str,
    typer.Option("--preset", help="A published recipe by name; a file of --config and flags override it."),
]

Config = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with any of these flags as keys; flags override it.", show_default=False),
]
