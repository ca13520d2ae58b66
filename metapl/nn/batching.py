"""Passes under `torch.vmap`: statistics of normalisation layers that each member has for itself, and what fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from metapl.core import torch_private, tree
from metapl.core.types import PyTree
from metapl.registry.errors import InputError


def statistics(module: nn.Module) -> frozenset[str]:
    """The buffers, by name, that normalisation layers write on in place."""
    return frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._NormBase)
        for name, _ in part.named_buffers(recurse=False)
    )


def batched_as(buffers: Mapping[str, Tensor], given: PyTree) -> dict[str, Tensor]:
    """The same buffers, one for each member of every `torch.vmap` that goes over a leaf of `given`.

    Torch refuses to write what a member has seen on a buffer that all of them share.
    """
    unknown = torch.compiler.is_compiling()  # which leaves are batched: it could be any
    tensors = [leaf for leaf in tree.leaves(given) if isinstance(leaf, Tensor)]
    members = [leaf for leaf in tensors if unknown or torch_private.is_batched(leaf)]
    found = dict(buffers)
    for leaf in members:
        found = {name: value + leaf.new_zeros((), dtype=value.dtype) for name, value in found.items()}
    return found


_CANNOT = ("doesn't match the broadcast shape", "Batching rule not implemented", "we do not yet support")
"""What torch says where it cannot take an operation over members, such as those of a recurrent layer."""


@contextmanager
def explained() -> Iterator[None]:
    """Say in one line what to do with a module that torch cannot take under `torch.vmap`."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if not torch_private.inside_vmap() or not any(mark in reason for mark in _CANNOT):
            raise
        raise InputError(
            f"torch cannot take this module under vmap ({reason}): loop over the members, and torch.stack the results"
        ) from error
