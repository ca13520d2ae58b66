"""Statistics of normalisation layers under `torch.vmap`: each member of the batch has its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metapl.core import torch_private, tree
from metapl.core.types import PyTree


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
