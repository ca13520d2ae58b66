"""Sums over processes that train one network together, as linear maps that can be differentiated.

A value is either *the same in all processes*, such as parameters and losses, or *a process's own*, such as the
activations of its part of a batch. Two maps lead from one kind to the other, and each is the transpose of the other:

    enter: the same in all ─► own     the identity; its transpose adds up the cotangents of all processes
    leave: own ─► the same in all     the sum over processes; its transpose is the identity

With ⟨a, b⟩ of own values the sum over the processes, ⟨enter(x), y⟩ = ⟨x, leave(y)⟩. The derivative of each is itself in
forward mode and the other one in reverse, so they can be differentiated as often as one likes, by `torch.autograd` and
by `torch.func`. Parameters that enter a network and outputs that leave it are all that data parallel training needs:
the gradient of a loss arrives summed, and so does every derivative of that gradient.

All processes must make the same calls in the same order.

Examples:
    >>> import torch
    >>> from metapl.core.collectives import ALONE, enter, leave
    >>> leave(ALONE, enter(ALONE, [torch.ones(2)]))
    (tensor([1., 1.]),)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import PyTree
from metapl.registry.errors import InputError

BUCKET = 2**23
"""The most numbers that are summed in one call. One large sum takes less time than many small ones."""


@dataclass(frozen=True)
class Processes:
    """The processes that train together, and which of them this is."""

    rank: int = 0
    count: int = 1
    reduce: Callable[[Tensor], Tensor] = lambda flat: flat
    """`reduce(flat)`: the sum over the processes of a tensor `[numbers]`, which it may overwrite."""


ALONE = Processes()
"""One process on its own."""


def enter(processes: Processes, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The same values, to be used for a process's own; on the way back the cotangents of all processes are added up."""
    return tuple(tensors) if processes.count == 1 else _Enter.apply(processes, *tensors)  # type: ignore[no-untyped-call]


def leave(processes: Processes, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The sums over the processes, the same in all of them. Cost: all numbers once through the network of machines."""
    return tuple(tensors) if processes.count == 1 else _Leave.apply(processes, *tensors)  # type: ignore[no-untyped-call]


class _Linear(torch.autograd.Function):
    """A linear map whose backward is its transpose, so that forward mode may go through it too."""

    differentiable_forward = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        ctx.processes = inputs[0]


class _Enter(_Linear):
    @staticmethod
    def forward(processes: Processes, *tensors: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG004
        return tuple(tensor.clone() for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        needed = ctx.needs_input_grad[1:]
        summed = iter(leave(ctx.processes, [one for one, need in zip(cotangents, needed, strict=True) if need]))
        return (None, *(next(summed) if need else None for need in needed))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor) -> tuple[Tensor, ...]:
        return enter(ctx.processes, tangents)


class _Leave(_Linear):
    @staticmethod
    def forward(processes: Processes, *tensors: Tensor) -> tuple[Tensor, ...]:
        found: list[Tensor] = list(tensors)
        for places in _buckets(tensors):
            flat = processes.reduce(torch.cat([tensors[place].reshape(-1) for place in places]))
            parts = flat.split([tensors[place].numel() for place in places])
            for place, part in zip(places, parts, strict=True):
                found[place] = part.reshape(tensors[place].shape)
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        return (None, *enter(ctx.processes, cotangents))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor) -> tuple[Tensor, ...]:
        return leave(ctx.processes, tangents)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[int]]:
    """The places of tensors of one dtype and device, up to `BUCKET` numbers at a time."""
    kinds: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for place, tensor in enumerate(tensors):
        kinds.setdefault((tensor.dtype, tensor.device), []).append(place)
    for places in kinds.values():
        bucket: list[int] = []
        size = 0
        for place in places:
            if bucket and size + tensors[place].numel() > BUCKET:
                yield bucket
                bucket, size = [], 0
            bucket.append(place)
            size += tensors[place].numel()
        yield bucket


def require_same(processes: Processes, what: str, values: PyTree) -> None:
    """Check that values which ought to be the same in all processes are, to the last bit.

    Processes on machines of different kinds may round differently, and then go apart step by step.

    Raises:
        InputError: they differ; the same error in all processes.
    """
    if processes.count == 1:
        return
    marks = torch.tensor([_mark(leaf) % 2**31 for leaf in tree.leaves(values)], dtype=torch.float64)
    every = torch.zeros(processes.count, len(marks), dtype=torch.float64)
    every[processes.rank] = marks
    every = processes.reduce(every.reshape(-1)).reshape(every.shape)
    other = (every != every[0]).any(dim=1).nonzero().flatten().tolist()
    if other:
        raise InputError(
            f"process {other[0]} of {processes.count} has another {what} than process 0: give all of them the same "
            "files, versions and kind of machine"
        )


def _mark(leaf: Tensor) -> int:
    """A whole number that another content most likely changes: the sum of the bits, weighted by their places."""
    content = torch.view_as_real(leaf) if leaf.is_complex() else leaf
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[content.element_size()]
    words = content.detach().cpu().contiguous().reshape(-1).view(whole).to(torch.int64)
    return int((words * (torch.arange(len(words)) % 65521 + 1)).sum())
