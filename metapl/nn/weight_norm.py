"""Weight normalisation with a right second derivative.

The double backward of `torch._weight_norm`, which torch's own layers call, is wrong without an error
(benchmarks/peers/torch_weight_norm.py), and it has no forward mode. Written out, w = g v / |v| has both.
"""

from __future__ import annotations

import copy
import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

_legacy = importlib.import_module("torch.nn.utils.weight_norm")  # torch.nn.utils has a function of that name


def weight(g: Tensor, v: Tensor, dim: int) -> Tensor:
    """g v / |v|, with the norm over all dimensions but `dim`; over all of them for −1."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


class WeightNorm(nn.Module):
    """`torch.nn.utils.parametrizations.weight_norm` written out."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """The weight, of the shape of v."""
        return weight(g, v, self.dim)


class _Hook:
    """The same as the hook of `torch.nn.utils.weight_norm`."""

    def __init__(self, name: str, dim: int) -> None:
        self.name, self.dim = name, dim

    def __call__(self, module: nn.Module, _inputs: Any) -> None:
        g, v = (getattr(module, f"{self.name}_{part}") for part in "gv")
        setattr(module, self.name, weight(g, v, self.dim))


def written_out(module: nn.Module) -> nn.Module:
    """A module with its weight normalisation written out; any other module as it is."""
    if isinstance(module, parametrizations._WeightNorm):
        return WeightNorm(module.dim)
    hooks = module._forward_pre_hooks
    if not any(isinstance(hook, _legacy.WeightNorm) for hook in hooks.values()):
        return module
    fresh = copy.copy(module)
    fresh._forward_pre_hooks = type(hooks)(
        (key, _Hook(hook.name, hook.dim) if isinstance(hook, _legacy.WeightNorm) else hook)
        for key, hook in hooks.items()
    )
    return fresh
