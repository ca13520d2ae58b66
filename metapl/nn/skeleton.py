"""A module taken apart, so that every pass runs on an instance of its own.

`torch.func.functional_call` puts tensors into the one module that there is and takes them out again. What looks at the
module later finds others or none: `torch.utils.checkpoint`, which runs a part again on the way back; a pass inside of a
pass; a hook that closes over the module. A `Skeleton` keeps the classes and attributes of a module and none of its
tensors; `instance` makes a module of the same structure around given tensors, in about two microseconds a part. What a
pass writes to its instance is gone with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from metapl.core import closures
from metapl.registry.errors import InputError

Replace = Callable[[nn.Module], nn.Module]
"""What stands in for a part of a module: itself, for most."""

_BASE = frozenset(vars(nn.Module()))
"""Attributes that every module has: its mode, its tensors and parts, its hooks."""


class _Part(NamedTuple):
    """One module of the tree."""

    kind: type
    name: str
    shared: dict[str, Any]
    """Attributes that every instance has."""
    copied: dict[str, Any]
    """Containers, of which each instance has a copy."""
    referring: dict[str, Any]
    """What refers to parts or tensors of the tree, of which each instance has a version."""
    watched: dict[str, Any]
    """Attributes that a pass must not change: numbers, texts and tensors."""
    parameters: dict[str, str | None]
    """Names in the tree by names in the part; None where there is no tensor."""
    buffers: dict[str, str | None]
    children: dict[str, int | None]
    training: tuple[bool, bool]
    """In evaluation, in training."""


class Skeleton:
    """The structure of a module, without its tensors.

    Args:
        module: is left as it was.
        replace: exchanges parts.
    """

    __slots__ = ("_homes", "_parts", "_referred", "buffers", "kinds", "trained")

    trained: dict[str, bool]
    """The names of the parameters, tied ones once, and whether they require a gradient."""
    buffers: tuple[str, ...]
    kinds: tuple[type, ...]
    """The class of each part, in the order of `instance`."""

    def __init__(self, module: nn.Module, replace: Replace) -> None:
        self.trained = {name: value.requires_grad for name, value in module.named_parameters()}
        self.buffers = tuple(name for name, _ in module.named_buffers())
        tensors = [*module.named_parameters(), *module.named_buffers()]
        names = {id(value): name for name, value in tensors}
        found = list(module.named_modules())
        places = {id(part): place for place, (_, part) in enumerate(found)}
        self._parts = [
            _part(name, replace(part), names, places, training)
            for (name, part), training in zip(found, _modes(module), strict=True)
        ]
        self._homes = _homes(self._parts)
        self.kinds = tuple(part.kind for part in self._parts)
        # Of the old modules and tensors only those that an attribute refers to are held, as it holds them anyway: an
        # identity is one as long as its object lives, and the others give their memory back.
        referred = closures.reached([part.referring for part in self._parts], {*names, *places})
        self._referred: list[tuple[Any, int | str]] = [
            (old, place) for place, (_, old) in enumerate(found) if id(old) in referred
        ]
        self._referred += [(value, name) for name, value in tensors if id(value) in referred]

    def instance(self, state: Mapping[str, Tensor], *, train: bool) -> list[nn.Module]:
        """The parts of a module with these tensors by name, the module itself first.

        Raises:
            RuntimeError: `state` has not exactly the names of the parameters and buffers.
        """
        _require(state, (*self.trained, *self.buffers))
        made: list[Any] = [object.__new__(part.kind) for part in self._parts]
        for module, part in zip(made, self._parts, strict=True):
            attributes = {**part.shared, "training": part.training[train]}
            attributes.update({name: _copy(value) for name, value in part.copied.items()})
            attributes["_parameters"] = {name: state[at] if at else None for name, at in part.parameters.items()}
            attributes["_buffers"] = {name: state[at] if at else None for name, at in part.buffers.items()}
            attributes["_modules"] = {name: None if at is None else made[at] for name, at in part.children.items()}
            object.__setattr__(module, "__dict__", attributes)
        if self._referred:
            self._refer(made, state)
        return made

    def tensor(self, made: Sequence[nn.Module], name: str) -> Tensor:
        """The tensor of that name as a pass has left it, in the instance's own place for it."""
        place, attribute = self._homes[name]
        return getattr(made[place], attribute)

    def _refer(self, made: Sequence[nn.Module], state: Mapping[str, Tensor]) -> None:
        """What refers to modules and tensors of the tree refers to those of the instance."""
        swap: dict[int, Any] = {id(old): made[at] if isinstance(at, int) else state[at] for old, at in self._referred}
        for module, part in zip(made, self._parts, strict=True):
            for name, value in part.referring.items():
                module.__dict__[name] = closures.swapped(value, swap)

    def changed(self, made: Sequence[nn.Module]) -> str | None:
        """The first attribute, by name, that a pass has changed and that the next pass would have seen.

        Raises:
            InputError: the pass has added a layer or a parameter.
        """
        for part, module in zip(self._parts, made, strict=True):
            if len(module._modules) > len(part.children) or len(module._parameters) > len(part.parameters):
                fresh = {*module._modules, *module._parameters} - {*part.children, *part.parameters}
                where = f"{part.name}.{min(fresh)}" if part.name else min(fresh)
                raise InputError(f"forward makes {where}, which is new in every pass: make it in the constructor")
            for name, before in part.watched.items():
                after = module.__dict__.get(name)
                if after is not before and (isinstance(before, Tensor) or after != before):
                    return f"{part.name}.{name}" if part.name else name
        return None


def _copy(container: Any) -> Any:
    """A shallow copy. `copy.copy` is for containers of other classes, which `torch.compile` does not take."""
    return container.copy() if type(container) in (list, dict, set) else copy.copy(container)


def _homes(parts: Sequence[_Part]) -> dict[str, tuple[int, str]]:
    """Where each tensor is: the part, and its name there; for one that is in several places, the first."""
    homes: dict[str, tuple[int, str]] = {}
    for place, part in enumerate(parts):
        for attribute, name in (*part.parameters.items(), *part.buffers.items()):
            if name:
                homes.setdefault(name, (place, attribute))
    return homes


def _modes(module: nn.Module) -> list[tuple[bool, bool]]:
    """Whether each part is in training, after `eval()` and after `train()`, which some modules override."""
    parts = list(module.modules())
    before = [part.training for part in parts]
    module.eval()
    evaluation = [part.training for part in parts]
    module.train()
    training = [part.training for part in parts]
    for part, mode in zip(parts, before, strict=True):
        part.training = mode
    return list(zip(evaluation, training, strict=True))


def _part(
    name: str, module: nn.Module, names: Mapping[int, str], places: Mapping[int, int], training: tuple[bool, bool]
) -> _Part:
    attributes = {key: value for key, value in vars(module).items() if key not in _STRUCTURE}
    tree = {*names, *places}
    referring = {key: value for key, value in attributes.items() if closures.reached(value, tree)}
    copied = {
        key: value
        for key, value in attributes.items()
        if key not in referring and key not in _BASE and isinstance(value, list | dict | set)
    }
    # A plain tensor is a constant, whatever it says of itself.
    shared = {
        key: value.detach() if isinstance(value, Tensor) and value.is_leaf else value
        for key, value in attributes.items()
        if key not in referring and key not in copied
    }
    registered = {*module._parameters, *module._buffers}
    watched = {
        key: value
        for key, value in shared.items()
        if key not in _BASE and isinstance(value, int | float | str | Tensor) and not _derived(key, registered)
    }
    return _Part(
        type(module),
        name,
        shared,
        copied,
        referring,
        watched,
        {key: None if value is None else names[id(value)] for key, value in module._parameters.items()},
        {key: None if value is None else names[id(value)] for key, value in module._buffers.items()},
        {key: None if child is None else places[id(child)] for key, child in module._modules.items()},
        training,
    )


_STRUCTURE = frozenset({"training", "_parameters", "_buffers", "_modules"})


def _derived(name: str, registered: set[str]) -> bool:
    """Whether a hook makes this attribute from parameters before every pass, as pruning and weight_norm do."""
    return any(f"{name}{ending}" in registered for ending in ("_orig", "_g"))


def _require(state: Mapping[str, Tensor], names: Sequence[str]) -> None:
    if len(state) == len(names) and all(name in state for name in names):
        return
    missing = [name for name in names if name not in state]
    extra = [name for name in state if name not in names]
    problems = [f"Missing key(s): {', '.join(missing)}."] if missing else []
    problems += [f"Unexpected key(s): {', '.join(extra)}."] if extra else []
    raise RuntimeError(f"params and buffers are not the module's own. {' '.join(problems)}")
