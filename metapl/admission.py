"""Which modules can be pure functions of their parameters, buffers, inputs and a key: what is refused at the door."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from metapl.errors import InputError

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
"""Modules that spread a batch over devices by themselves."""


def require_pure(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` makes.

    Raises:
        InputError: it is a module itself, or makes none, or one with lazy parameters, sparse gradients or a generator
            of its own, or one of `torch.jit`, or one that spreads its batch over devices.
    """
    if isinstance(build, nn.Module):
        raise InputError(
            f"from_module() was given a {type(build).__name__}: it takes a function that builds a module, "
            "such as lambda: nn.Linear(3, 2)"
        )
    module = build()
    if not isinstance(module, nn.Module):
        raise InputError(f"from_module(): build() made a {type(module).__name__}: it must return an nn.Module")
    for name, part in module.named_modules():
        for what in _objections(part):
            where = f"{name} ({type(part).__name__})" if name else type(part).__name__
            raise InputError(f"from_module(): {where} {what}")
    return module


def _objections(part: nn.Module) -> Iterator[str]:
    if isinstance(part, torch.jit.ScriptModule):
        yield "is compiled by torch.jit and cannot be made anew: give the module that it was compiled from"
    if isinstance(part, WRAPPERS):
        yield "spreads its batch over devices by itself: give the module inside of it, .module"
    lazy = [name for name, value in (*part._parameters.items(), *part._buffers.items()) if is_lazy(value)]
    if lazy:
        yield f"has no shape for {lazy[0]} before its first batch: use a layer that is not lazy"
    if getattr(part, "sparse", False) and isinstance(part, nn.Embedding | nn.EmbeddingBag):
        yield "has sparse gradients, which cannot be differentiated again: use sparse=False"
    own = [name for name, value in vars(part).items() if isinstance(value, torch.Generator)]
    if own:
        yield f"draws from a generator of its own ({own[0]}): draw from torch's, which every pass seeds with its key"
