"""What a function holds beside its arguments: to find tensors in it, and to make the function again with others.

A function is a value with parts: the variables that it closes over, its defaults, the globals of its module that it
names; and so are partials, bound methods, named tuples such as an optimiser, lists and dicts, and objects with
attributes. `captured` goes through all of these, `swapped` makes them anew with some parts exchanged.

Examples:
    >>> import torch
    >>> from metapl.core import closures
    >>> def step_with(rate):
    ...     return lambda w: w - rate * w
    >>> rate = torch.tensor(0.5, requires_grad=True)
    >>> step = step_with(rate)
    >>> [name for name, _ in closures.captured(step)]
    ['rate']
    >>> closures.swapped(step, {id(rate): torch.tensor(1.0)})(torch.tensor(3.0))
    tensor(0.)
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metapl.core.torch_private import is_wrapped

LIMIT = 20_000
"""Parts that are looked at, at most: whoever closes over a data set must not wait for all of it."""

_LIBRARIES = frozenset({"torch", "metapl", "numpy", "functorch", "einops", "higher", "builtins"})
"""Packages whose functions do not reach for tensors among their globals."""

_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size, torch.Generator)
_OPAQUE = (
    *_PLAIN,
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.CodeType,
    types.FrameType,
    nn.Module,
    torch.fx.Graph,
)
"""Not gone through: a module's parameters go in as arguments."""


def _names(code: types.CodeType) -> set[str]:
    """The globals that a function names, and those of the functions that are written inside it."""
    inside = (_names(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*inside)


def _globals(fn: types.FunctionType) -> Iterator[tuple[str, Any]]:
    if fn.__globals__.get("__name__", "").partition(".")[0] in _LIBRARIES:
        return
    for name in sorted(_names(fn.__code__)):
        value = fn.__globals__.get(name)
        # Of other modules' functions only those that close over something: their own modules are theirs.
        if not isinstance(value, types.FunctionType) or value.__globals__ is fn.__globals__ or value.__closure__:
            yield name, value


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def _parts(value: Any) -> list[tuple[str, Any]]:
    """The parts of a value by name, as its owner would write them."""
    if isinstance(value, types.FunctionType):
        closed = zip(value.__code__.co_freevars, map(_content, value.__closure__ or ()), strict=True)
        defaults = ((f"default {i} of {value.__name__}", one) for i, one in enumerate(value.__defaults__ or ()))
        parts = [*closed, *defaults, *(value.__kwdefaults__ or {}).items(), *_globals(value)]
    elif isinstance(value, functools.partial):
        bound = [(f"argument {i} of the partial", one) for i, one in enumerate(value.args)]
        parts = [("the partial's function", value.func), *bound, *value.keywords.items()]
    elif isinstance(value, types.MethodType):
        parts = [("self", value.__self__), (value.__name__, value.__func__)]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = [(f".{name}", one) for name, one in zip(value._fields, value, strict=True)]
    elif isinstance(value, list | tuple):
        parts = [(f"[{i}]", one) for i, one in enumerate(value[:LIMIT])]
    elif isinstance(value, dict):
        parts = [(f"[{key!r}]", one) for key, one in value.items()]
    else:
        parts = [(f".{name}", one) for name, one in getattr(value, "__dict__", {}).items()]
    return parts


class _Walk(NamedTuple):
    """All values that a root reaches, by identity; kept alive, so that identities stay theirs."""

    values: dict[int, Any]
    owners: dict[int, list[int]]
    names: dict[int, str]


def _walk(root: Any, ends: Callable[[Any], bool]) -> _Walk:
    walk = _Walk({id(root): root}, {}, {id(root): ""})
    waiting = [root]
    while waiting and len(walk.values) < LIMIT:
        owner = waiting.pop()
        if ends(owner) or isinstance(owner, Tensor) or (isinstance(owner, _OPAQUE) and owner is not root):
            continue
        for name, part in _parts(owner):
            if isinstance(part, _PLAIN):
                continue
            walk.owners.setdefault(id(part), []).append(id(owner))
            if id(part) not in walk.values:
                above = walk.names[id(owner)]
                walk.values[id(part)] = part
                walk.names[id(part)] = f"{above}{name}" if name[0] in ".[" else name
                waiting.append(part)
    return walk


def _live(value: Any) -> bool:
    """Whether a tensor has a derivative to carry, or belongs to a transform that is running."""
    return isinstance(value, Tensor) and not value.is_meta and (value.requires_grad or is_wrapped(value))


def captured(fn: Any) -> list[tuple[str, Tensor]]:
    """The tensors that a function, or a tuple of functions, holds and that are more than constants, by name.

    They require a gradient, or a running transform differentiates or batches them. An `nn.Module` is not looked into.
    """
    walk = _walk(fn, _live)
    return [(walk.names[key], value) for key, value in walk.values.items() if _live(value)]


def reached(value: Any, parts: Collection[int]) -> set[int]:
    """Those of `parts`, the `id` of objects, that a value is or holds."""
    return set(parts).intersection(_walk(value, lambda part: id(part) in parts).values)


def swapped(value: Any, swap: Mapping[int, Any]) -> Any:
    """The same value with the parts whose `id` is among `swap` exchanged, itself untouched.

    What holds none of them is passed on as it is. Functions keep their code, objects their class.
    """
    walk = _walk(value, lambda part: id(part) in swap)
    touched = {key for key in walk.values if key in swap}
    waiting = list(touched)
    while waiting:
        fresh = [owner for owner in walk.owners.get(waiting.pop(), ()) if owner not in touched]
        touched.update(fresh)
        waiting += fresh
    return _Maker(walk.values, touched, dict(swap)).made(value)


class _Maker(NamedTuple):
    """Makes the touched values anew, each once; a shell goes in before its parts, which may hold it in turn."""

    values: Mapping[int, Any]
    touched: set[int]
    done: dict[int, Any]

    def made(self, value: Any) -> Any:
        if id(value) in self.done:
            return self.done[id(value)]
        if id(value) not in self.touched:
            return value
        return self._of(value)

    def _of(self, value: Any) -> Any:
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, functools.partial):
            keywords = {name: self.made(one) for name, one in value.keywords.items()}
            return self._keep(value, functools.partial(self.made(value.func), *map(self.made, value.args), **keywords))
        if isinstance(value, types.MethodType):
            return self._keep(value, types.MethodType(self.made(value.__func__), self.made(value.__self__)))
        if isinstance(value, tuple):
            parts = [self.made(one) for one in value]
            return self._keep(value, value._make(parts) if hasattr(value, "_make") else type(value)(parts))
        if isinstance(value, list):
            fresh = self._keep(value, copy.copy(value))
            fresh[:] = [self.made(one) for one in value]
            return fresh
        fresh = self._keep(value, copy.copy(value))
        if isinstance(value, dict):
            fresh.update({key: self.made(one) for key, one in value.items()})
        else:
            vars(fresh).update({name: self.made(one) for name, one in vars(value).items()})
        return fresh

    def _keep(self, value: Any, fresh: Any) -> Any:
        self.done[id(value)] = fresh
        return fresh

    def _function(self, fn: types.FunctionType) -> types.FunctionType:
        names = {name: value for name, value in _globals(fn) if id(value) in self.touched}
        space = {**fn.__globals__} if names else fn.__globals__
        cells = [cell if id(_content(cell)) not in self.touched else types.CellType() for cell in fn.__closure__ or ()]
        fresh: types.FunctionType = self._keep(
            fn, types.FunctionType(fn.__code__, space, fn.__name__, None, tuple(cells))
        )
        for cell, old in zip(cells, fn.__closure__ or (), strict=True):
            if cell is not old:
                cell.cell_contents = self.made(_content(old))
        space.update({name: self.made(value) for name, value in names.items()})
        fresh.__defaults__ = tuple(map(self.made, fn.__defaults__)) if fn.__defaults__ else None
        fresh.__kwdefaults__ = {k: self.made(v) for k, v in fn.__kwdefaults__.items()} if fn.__kwdefaults__ else None
        fresh.__dict__.update(fn.__dict__)
        return fresh
