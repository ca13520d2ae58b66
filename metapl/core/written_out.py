"""Normalisation layers in elementary operations, for `torch.compile`.

Torch's own derivative of their gradient is wrong inside of a `torch.vmap` that is differentiated (see
`metapl.core.torch_private.across_vmap`). Elsewhere `metapl.core.inside` goes round that; a compiler takes the formulas,
and fuses what they are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.core.interception import Interception


def norms_written_out() -> Interception:
    """Within the block `torch.nn.functional.batch_norm`, `layer_norm`, `group_norm` and `rms_norm` are formulas."""
    return Interception(_written_out)


def _written_out(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func is F.layer_norm:
        return _layer_norm(*args, **kwargs)
    if func is F.batch_norm:
        return _batch_norm(*args, **kwargs)
    if func is F.group_norm:
        return _group_norm(*args, **kwargs)
    if func is F.rms_norm:
        return _rms_norm(*args, **kwargs)
    return func(*args, **kwargs)


def _moments(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    mean = x.mean(dims, keepdim=True)
    return mean, ((x - mean) ** 2).mean(dims, keepdim=True)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _by_channel(vector: Tensor | None, x: Tensor) -> Tensor | None:
    """A value for each channel, beside `[batch, channels, ...]`."""
    return None if vector is None else vector.reshape(1, -1, *(1,) * (x.ndim - 2))


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    mean, variance = _moments(x, list(range(-len(normalized_shape), 0)))
    return _affine((x - mean) * torch.rsqrt(variance + eps), weight, bias)


def _rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    size = (x**2).mean(tuple(range(-len(normalized_shape), 0)), keepdim=True)
    return _affine(x * torch.rsqrt(size + (torch.finfo(x.dtype).eps if eps is None else eps)), weight, None)


def _group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    grouped = x.reshape(x.shape[0], num_groups, -1)
    mean, variance = _moments(grouped, [-1])
    normal = ((grouped - mean) * torch.rsqrt(variance + eps)).reshape(x.shape)
    return _affine(normal, _by_channel(weight, x), _by_channel(bias, x))


def _batch_norm(  # noqa: PLR0913, PLR0917 - as torch has it
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or running_mean is None or running_var is None:
        dims = [0, *range(2, x.ndim)]
        mean, variance = _moments(x, dims)
        if running_mean is not None and running_var is not None:
            count = x.numel() // x.shape[1]
            with torch.no_grad():
                unbiased = variance.detach() * (count / (count - 1))
                running_mean.mul_(1.0 - momentum).add_(momentum * mean.detach().reshape(-1))
                running_var.mul_(1.0 - momentum).add_(momentum * unbiased.reshape(-1))
    else:
        mean, variance = (one.reshape(1, -1, *(1,) * (x.ndim - 2)) for one in (running_mean, running_var))
    return _affine((x - mean) * torch.rsqrt(variance + eps), _by_channel(weight, x), _by_channel(bias, x))
