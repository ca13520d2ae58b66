"""Normalisation layers in elementary operations.

Torch's own derivative of their gradient is wrong inside of a `torch.vmap` that is differentiated (see
`metapl.core.torch_private.across_vmap`), and one of the formulas is right. A compiler fuses what they are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.core.interception import Interception
from metapl.registry.errors import InputError


def norms_written_out() -> Interception:
    """Within the block `batch_norm`, `instance_norm`, `layer_norm`, `group_norm` and `rms_norm` are formulas.

    Those of `torch.nn.functional`, and those of `torch` that they call.

    Raises:
        InputError: where `torch.native_batch_norm` or `torch.native_layer_norm` is called.
    """
    return Interception(_written_out)


def _written_out(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    formula = _FORMULAS.get(func)
    if formula is not None:
        return formula(*args, **kwargs)
    formula = _IN_ANOTHER_ORDER.get(func)
    if formula is not None:
        return formula(*_in_order(*args, **kwargs))
    if func in _REFUSED:
        raise InputError(f"the derivative of torch.{func.__name__} is wrong under vmap: call torch.nn.functional's")
    return func(*args, **kwargs)


def _in_order(  # noqa: PLR0913, PLR0917 - as torch has it
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    *_cudnn: bool,
) -> tuple[Any, ...]:
    """The arguments of `torch.batch_norm` in the order of `torch.nn.functional.batch_norm`."""
    return x, running_mean, running_var, weight, bias, training, momentum, eps


def _wide(x: Tensor) -> Tensor:
    """In float32 at least, as torch reckons where the numbers are of half the digits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _moments(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """The mean, x less the mean, and the variance."""
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    return mean, centred, (centred * centred).mean(dims, keepdim=True)


def _scaled(
    x: Tensor, centred: Tensor, variance: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """Centred / √(variance + eps) · weight + bias, in the dtype of x, in few passes over what is as large as x."""
    scale = torch.rsqrt(variance + eps)
    if weight is not None:
        scale = scale * _wide(weight)
    if bias is None:
        return (centred * scale).to(x.dtype)
    return torch.addcmul(_wide(bias), centred, scale).to(x.dtype)


def _by_channel(vector: Tensor | None, x: Tensor) -> Tensor | None:
    """A value for each channel, beside `[batch, channels, ...]`."""
    return None if vector is None else vector.reshape(1, -1, *(1,) * (x.ndim - 2))


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_cudnn: bool,
) -> Tensor:
    _, centred, variance = _moments(_wide(x), list(range(-len(normalized_shape), 0)))
    return _scaled(x, centred, variance, eps, weight, bias)


def _rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    wide = _wide(x)
    size = (wide * wide).mean(tuple(range(-len(normalized_shape), 0)), keepdim=True)
    return _scaled(x, wide, size, torch.finfo(x.dtype).eps if eps is None else eps, weight, None)


def _group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_cudnn: bool,
) -> Tensor:
    _, centred, variance = _moments(_wide(x).reshape(x.shape[0], num_groups, -1), [-1])
    normal = (centred * torch.rsqrt(variance + eps)).reshape(x.shape)
    weight, bias = _by_channel(weight, x), _by_channel(bias, x)
    normal = normal if weight is None else normal * weight
    return (normal if bias is None else normal + bias).to(x.dtype)


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
    if not training and running_mean is not None and running_var is not None:
        return _by_statistics(x, running_mean, running_var, weight, bias, eps)
    if x.numel() == x.shape[1]:
        raise ValueError(f"batch_norm in training needs more than one value a channel, it was given {list(x.shape)}")
    return _by_own(x, [0, *range(2, x.ndim)], running_mean, running_var, weight, bias, momentum, eps)


def _instance_norm(  # noqa: PLR0913, PLR0917 - as torch has it
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats and running_mean is not None and running_var is not None:
        return _by_statistics(x, running_mean, running_var, weight, bias, eps)
    if x.numel() == x.shape[0] * x.shape[1]:
        raise ValueError(f"instance_norm needs more than one value a channel, it was given {list(x.shape)}")
    return _by_own(x, list(range(2, x.ndim)), running_mean, running_var, weight, bias, momentum, eps)


def _by_statistics(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    shape = (1, -1, *(1,) * (x.ndim - 2))
    centred = _wide(x) - mean.reshape(shape)
    return _scaled(x, centred, variance.reshape(shape), eps, _by_channel(weight, x), _by_channel(bias, x))


def _by_own(  # noqa: PLR0913, PLR0917 - as torch has it
    x: Tensor,
    dims: list[int],
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """By the mean and variance of x over `dims`, which are written on the running ones, in the mean of the batch."""
    mean, centred, variance = _moments(_wide(x), dims)
    if running_mean is not None and running_var is not None:
        count = x.numel() // mean.numel()
        with torch.no_grad():
            now, unbiased = (one.detach().mean(0).reshape(-1) for one in (mean, variance * (count / (count - 1))))
            running_mean.mul_(1.0 - momentum).add_(momentum * now)
            running_var.mul_(1.0 - momentum).add_(momentum * unbiased)
    return _scaled(x, centred, variance, eps, _by_channel(weight, x), _by_channel(bias, x))


_FORMULAS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    torch.group_norm: _group_norm,
    F.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
}
_IN_ANOTHER_ORDER: dict[Callable[..., Any], Callable[..., Tensor]] = {
    torch.batch_norm: _batch_norm,
    torch.instance_norm: _instance_norm,
}
_REFUSED = frozenset({torch.native_batch_norm, torch.native_layer_norm})
