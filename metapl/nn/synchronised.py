"""BatchNorm whose statistics are those of a batch that is shared out among processes.

`torch.nn.SyncBatchNorm` has no second derivative and no forward mode, and runs on GPUs only. This is a formula of sums
that can be differentiated (`metapl.core.collectives`), which takes the place of `torch.nn.functional.batch_norm`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.core.collectives import Processes, enter, leave
from metapl.core.interception import Interception


def batch_norms_across(processes: Processes, shares: Sequence[int]) -> Interception:
    """Within the block every BatchNorm in training takes mean and variance over the examples of all processes.

    Args:
        processes: who shares the batch, all of whom pass the same layers.
        shares: how many examples each of them has.

    Cost: a sum of two numbers a channel and process for each layer on the way there, and as much on the way back.
    """

    def around(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _batch_norm(processes, shares, *args, **kwargs) if func is F.batch_norm else func(*args, **kwargs)

    return Interception(around)


def _batch_norm(  # noqa: PLR0913, PLR0917 - as torch has it
    processes: Processes,
    shares: Sequence[int],
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
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    mean, variance = _moments(processes, shares, x)
    if running_mean is not None and running_var is not None:
        count = sum(shares) * (x.numel() // x.shape[1] // len(x))
        with torch.no_grad():
            running_mean.mul_(1.0 - momentum).add_(momentum * mean.detach())
            running_var.mul_(1.0 - momentum).add_(momentum * variance.detach() * (count / (count - 1)))
    scale = torch.rsqrt(variance + eps) if weight is None else torch.rsqrt(variance + eps) * weight
    normal = (x - _beside(mean, x)) * _beside(scale, x)
    return normal if bias is None else normal + _beside(bias, x)


def _beside(vector: Tensor, x: Tensor) -> Tensor:
    """A value for each channel, beside `[batch, channels, ...]`."""
    return vector.reshape(1, -1, *(1,) * (x.ndim - 2))


def _moments(processes: Processes, shares: Sequence[int], x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over all processes, from those of each (Chan, Golub and LeVeque, 1979)."""
    dims = [0, *range(2, x.ndim)]
    mean = x.mean(dims, keepdim=True)
    own = torch.stack([mean.flatten(), ((x - mean) ** 2).mean(dims)])
    place = torch.tensor([processes.rank], device=x.device)
    placed = x.new_zeros(processes.count, *own.shape).index_copy(0, place, own[None])
    # What leaves enters again: every process normalises examples of its own by the moments of all.
    (every,) = enter(processes, leave(processes, [placed]))
    weights = (torch.tensor(shares, dtype=torch.float64) / sum(shares)).to(x)[:, None]
    means, variances = every.unbind(1)
    middle = (weights * means).sum(0)
    return middle, (weights * (variances + (means - middle) ** 2)).sum(0)
