"""Layers that a module uses without having them: no optimiser sees them, and to a pure function they are constant."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from typing import Any

from torch import nn


def uses_outside(part: nn.Module, known: set[int]) -> Iterator[str]:
    """The layers with something to train that `part` reaches, by the names it has for them, and that are not `known`.

    Looked at are its attributes, what its forward closes over, and the globals that forward names.
    """
    found = {name: value for name, value in vars(part).items() if name not in _STRUCTURE}
    forward = type(part).forward
    if isinstance(forward, types.FunctionType):
        found |= dict(_held(forward))
    for name, value in found.items():
        if any(id(one) not in known and _trains(one) for one in _layers(value, set())):
            yield name


_STRUCTURE = frozenset({"_modules", "_parameters", "_buffers"})


def _trains(layer: nn.Module) -> bool:
    return any(one.requires_grad for one in layer.parameters())


def _layers(value: Any, seen: set[int]) -> Iterator[nn.Module]:
    """The layers in a value: in containers, and in functions."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        yield value
        return
    parts: list[Any] = []
    if isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, types.MethodType):
        parts = [value.__self__]
    elif isinstance(value, functools.partial):
        parts = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, types.FunctionType):
        parts = [one for _, one in _held(value)]
    for one in parts:
        yield from _layers(one, seen)


def _held(fn: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The variables that a function closes over, and the layers among the globals that it names itself."""
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a variable that has no value yet
            continue
    for name in _globals(fn.__code__):
        value = fn.__globals__.get(name)
        if isinstance(value, nn.Module):
            yield name, value


@functools.cache
def _globals(code: types.CodeType) -> tuple[str, ...]:
    """Not `co_names`, which has the names of attributes too."""
    return tuple({one.argval: None for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"})
