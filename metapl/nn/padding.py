"""Embeddings with a padding index that no task of a `torch.vmap` learns.

Where the weights differ from member to member torch's rule numbers the rows of all members through, and forgets that
each has a row of padding: that row gets a gradient, and moves (torch 2.13).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from metapl.core import torch_private


class Padded(nn.Embedding):
    """`nn.Embedding` whose row of padding is a constant, under `torch.vmap` too."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        """Rows of the weight, `[..., embedding_dim]`, for indices `[...]`."""
        if not (torch.compiler.is_compiling() or torch_private.inside_vmap()):
            return super().forward(input)
        assert self.padding_idx is not None
        found = embedding(input, self.weight)
        return torch.where(torch.eq(input, self.padding_idx).unsqueeze(-1), found.detach(), found)


def kept(module: nn.Module) -> nn.Module:
    """An embedding with padding as a `Padded` one; any other module as it is."""
    if type(module) is not nn.Embedding or module.padding_idx is None:
        return module
    fresh = copy.copy(module)
    fresh.__class__ = Padded
    return fresh
