"""Networks from elsewhere: `timm:NAME,key=value,…` and `module:PACKAGE.MODULE:CONSTRUCTOR,key=value,…`.

Examples:
    >>> from metapl.models.external import external, read
    >>> read("torch.nn:Linear,bias=false")
    ('torch.nn:Linear', {'bias': False})
"""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from metapl.registry.errors import InputError


def read(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options in `NAME,key=value,…`; values are true, false, whole or finite numbers, or text.

    Raises:
        InputError: an option without a value.
    """
    name, *items = text.split(",")
    given = {}
    for item in filter(None, items):
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise InputError(f"model option {item!r} of {name!r} has no name or no value: write {name},KEY=VALUE")
        given[key] = _literal(value)
    return name, given


def _literal(text: str) -> bool | int | float | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _timm(name: str, shape: tuple[int, ...], classes: int, options: dict[str, Any]) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except Exception as error:  # beside ImportError what an installation that does not fit torch raises
        raise InputError(f"model 'timm:{name}' needs timm ({_reason(error)}): pip install timm") from error
    if len(shape) != 3:
        raise InputError(f"model 'timm:{name}' needs images, this data has shape {list(shape)}: use mlp")
    try:
        module = timm.create_model(name, **{"num_classes": classes, "in_chans": shape[0], **options})
    except Exception as error:
        raise InputError(
            f"model 'timm:{name}' cannot be made ({_reason(error)}): timm.list_models() has the names"
        ) from error
    for part in module.modules():
        # The fused kernels have no forward mode, and that of the CPU no second derivative; written out it has both.
        if getattr(part, "fused_attn", False):
            part.fused_attn = False
    return module


def _module(name: str, shape: tuple[int, ...], classes: int, options: dict[str, Any]) -> nn.Module:
    place, colon, attribute = name.partition(":")
    if not (place and colon and attribute):
        raise InputError(f"model 'module:{name}' names no constructor: write module:PACKAGE.MODULE:CONSTRUCTOR")
    if not all(part.isidentifier() for part in place.split(".")):
        raise InputError(f"model 'module:{name}': {place!r} is no name of a module: write PACKAGE.MODULE")
    _require_outside_python(place, name)
    try:
        found = importlib.import_module(place)
    except Exception as error:
        raise InputError(
            f"model 'module:{name}': {place} cannot be imported ({_reason(error)}): install it, "
            "or put its folder on PYTHONPATH"
        ) from error
    constructor = _constructor(getattr(found, attribute, None), attribute, name)
    try:
        return constructor(shape, classes, **options)
    except Exception as error:
        raise InputError(
            f"model 'module:{name}' failed ({_reason(error)}): it is called as {attribute}({shape}, {classes}"
            f"{''.join(f', {key}={value!r}' for key, value in options.items())})"
        ) from error


def _constructor(found: Any, attribute: str, name: str) -> Callable[..., Any]:
    """What was named, if it may make a network; it is not called with anything to find out."""
    if isinstance(found, type):
        if not issubclass(found, nn.Module):
            raise InputError(f"model 'module:{name}': class {attribute} is no nn.Module: name one, or a function")
    elif not inspect.isfunction(found):
        what = "is not there" if found is None else f"is a {type(found).__name__}"
        raise InputError(
            f"model 'module:{name}': {attribute} {what}: name a function (shape, classes, …) or a class of nn.Module"
        )
    _require_outside_python(str(found.__module__), name)
    return found


def _require_outside_python(place: str, name: str) -> None:
    if place.partition(".")[0] in (*sys.stdlib_module_names, "__main__"):
        raise InputError(f"model 'module:{name}': {place} is of Python itself, which has no network: name your own")


KINDS: dict[str, Callable[[str, tuple[int, ...], int, dict[str, Any]], nn.Module]] = {"timm": _timm, "module": _module}
"""What may stand before the colon."""


def external(kind: str, name: str, shape: tuple[int, ...], classes: int, options: dict[str, Any]) -> nn.Module:
    """A network that metapl does not define.

    Of kind `timm`: `timm.create_model(name, num_classes=classes, in_chans=shape[0], **options)`, its attention written
    out so that it can be differentiated twice; timm is optional. Of kind `module`, where the name is
    `PACKAGE.MODULE:CONSTRUCTOR`: `CONSTRUCTOR(shape, classes, **options)`, which is a class of `nn.Module` or a Python
    function, neither of them of the standard library, and gives an `nn.Module` that maps
    `[batch, *shape]` to logits `[batch, classes]`, as the constructors here do.

    What comes back is tried on two examples, so that a network for other inputs is refused before it trains: on the
    meta device, which computes shapes alone, and if it cannot run there on the CPU.

    Args:
        kind: `timm` or `module`.
        name: what to make.
        shape: of one example.
        classes: number of them.
        options: passed on as keywords.

    Raises:
        InputError: whatever is wrong, in one line: timm is absent, nothing to import, not callable, a constructor that
            raises, something other than a module, one without parameters or with lazy ones, logits of another shape.
    """
    return _checked(KINDS[kind](name, shape, classes, options), f"model '{kind}:{name}'", shape, classes)


def _checked(module: object, what: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    if not isinstance(module, nn.Module):
        raise InputError(f"{what} makes a {type(module).__name__}: a constructor returns an nn.Module")
    lazy = [name for name, value in [*module.named_parameters(), *module.named_buffers()] if is_lazy(value)]
    if lazy:
        raise InputError(f"{what} has no shape for {lazy[0]} before its first batch: use layers that are not lazy")
    if next(module.parameters(), None) is None:
        raise InputError(f"{what} has no parameters: there is nothing to train")
    logits = _try(module, what, shape)
    if not isinstance(logits, Tensor):
        raise InputError(f"{what} returns a {type(logits).__name__}: it must return logits [batch, {classes}]")
    if logits.shape != (2, classes):
        raise InputError(f"{what} maps {[2, *shape]} to {list(logits.shape)}: it must return logits [batch, {classes}]")
    return module


def _try(module: nn.Module, what: str, shape: tuple[int, ...]) -> object:
    """What the network makes of two examples."""
    try:
        return _forward(module, shape, "meta")
    except Exception:  # such as .item(), which has no answer there
        try:
            return _forward(module, shape, "cpu")
        except Exception as error:
            raise InputError(f"{what} cannot take inputs {[2, *shape]} ({_reason(error)})") from error


def _forward(module: nn.Module, shape: tuple[int, ...], device: str) -> object:
    # A copy, because a forward pass may write to the module.
    trial = copy.deepcopy(module).eval().to(device)
    with torch.no_grad(), torch.device(device):
        return trial(torch.zeros(2, *shape))
