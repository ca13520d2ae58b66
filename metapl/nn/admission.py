"""Which modules can be pure functions of their parameters, buffers, inputs and a key: what is refused at the door."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from metapl.nn.outside import uses_outside
from metapl.registry.errors import InputError

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
"""Modules that spread a batch over devices by themselves."""


def require_pure(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` makes.

    Raises:
        InputError: it is a module itself, or makes none, or one with lazy parameters, sparse gradients, gradients
            scaled by frequency, hooks on parameters, layers that it hides or that are not its own, or a generator of
            its own, or one of `torch.jit`, or one that spreads its batch over devices.
    """
    if isinstance(build, nn.Module):
        raise InputError(
            f"from_module() was given a {type(build).__name__}: it takes a function that builds a module, "
            "such as lambda: nn.Linear(3, 2)"
        )
    module = build()
    if not isinstance(module, nn.Module):
        raise InputError(f"from_module(): build() made a {type(module).__name__}: it must return an nn.Module")
    known = {id(part) for part in module.modules()}
    for name, part in module.named_modules():
        for what in chain(_objections(part), _hidden(part, known), _outside(part, known)):
            where = f"{name} ({type(part).__name__})" if name else type(part).__name__
            raise InputError(f"from_module(): {where} {what}")
    return module


def _objections(part: nn.Module) -> Iterator[str]:
    if isinstance(part, torch.jit.ScriptModule):
        yield "is compiled by torch.jit and cannot be made anew: give the module that it was compiled from"
    if isinstance(part, WRAPPERS):
        yield "spreads its batch over devices by itself: give the module inside of it, .module"
    tensors: list[tuple[str, Any]] = [*part._parameters.items(), *part._buffers.items()]
    lazy = [name for name, value in tensors if is_lazy(value)]
    if lazy:
        yield f"has no shape for {lazy[0]} before its first batch: use a layer that is not lazy"
    if getattr(part, "sparse", False) and isinstance(part, nn.Embedding | nn.EmbeddingBag):
        yield "has sparse gradients, which cannot be differentiated again: use sparse=False"
    if getattr(part, "scale_grad_by_freq", False) and isinstance(part, nn.Embedding | nn.EmbeddingBag):
        yield "has gradients scaled by frequency, whose own derivative is wrong in torch: use scale_grad_by_freq=False"
    hooked = [name for name, value in part._parameters.items() if value is not None and _is_hooked(value)]
    if hooked:
        yield f"has a hook on the parameter {hooked[0]}, which a pass on other tensors leaves behind: remove the hook"
    if part._backward_hooks or part._backward_pre_hooks:
        yield "has a backward hook, after which its gradient is not the derivative of its value: remove the hook"
    own = [name for name, value in vars(part).items() if isinstance(value, torch.Generator)]
    if own:
        yield f"draws from a generator of its own ({own[0]}): draw from torch's, which every pass seeds with its key"


def _is_hooked(parameter: Tensor) -> bool:
    return bool(parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None))


def _hidden(part: nn.Module, known: set[int]) -> Iterator[str]:
    """Layers that a plain container hides from torch, and so from every optimiser."""
    for name, value in vars(part).items():
        items = value.values() if isinstance(value, dict) else value
        if name.startswith("_") or not isinstance(value, list | tuple | dict):
            continue
        for item in items:
            if isinstance(item, nn.Module) and id(item) not in known and any(True for _ in item.parameters()):
                yield f"hides a layer in the plain container {name}: use nn.ModuleList or nn.ModuleDict"
                return


def _outside(part: nn.Module, known: set[int]) -> Iterator[str]:
    for name in uses_outside(part, known):
        yield f"uses the layer {name}, which is not a part of it and would never learn: assign it in the constructor"
