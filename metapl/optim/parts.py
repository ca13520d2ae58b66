"""What the update rules are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metapl.core import tree
from metapl.core.types import Params, PyTree
from metapl.registry.errors import InputError


def counter(params: Params) -> Tensor:
    """No updates taken yet: an int64 scalar beside the parameters, of which there may be none."""
    device = next((param.device for param in tree.leaves(params)), None)
    return torch.zeros((), dtype=torch.int64, device=device)


def at_work(value: float | Tensor) -> bool:
    """Whether a term counts. The number zero switches it off; a tensor never does, since gradients flow to it."""
    return isinstance(value, Tensor) or value != 0.0


def wide(value: float | Tensor, like: Tensor) -> Tensor:
    """A hyperparameter as a float64 scalar on the device of `like`."""
    if isinstance(value, Tensor):
        return value.to(like.device, torch.float64)
    return torch.tensor(value, dtype=torch.float64, device=like.device)


def bias_correction(beta: float | Tensor, step: Tensor, dtype: torch.dtype) -> Tensor:
    """1 − beta^step, by way of float64, since 1 − 0.999 in float32 has lost four digits."""
    base = beta.to(torch.float64) if isinstance(beta, Tensor) else beta
    return (1.0 - base ** step.to(torch.float64)).to(dtype)


def descent(grad: Tensor, param: Tensor, weight_decay: float | Tensor, *, maximize: bool) -> Tensor:
    """±grad + weight_decay · param: what a rule with a penalty, or without one, descends along."""
    grad = -grad if maximize else grad
    return grad + weight_decay * param if at_work(weight_decay) else grad


def average(before: Tensor, now: Tensor, beta: float | Tensor) -> Tensor:
    """beta · before + (1 − beta) · now."""
    return beta * before + (1.0 - beta) * now


def trust(top: Tensor, bottom: Tensor) -> Tensor:
    """top / bottom for two norms, and 1 where either is zero: a layer that is all zeros must be able to leave."""
    both = (top > 0) & (bottom > 0)
    # The division is kept away from 0 / 0, whose gradient would be NaN although it is not selected.
    return torch.where(both, top / torch.where(both, bottom, torch.ones_like(bottom)), torch.ones_like(top))


def each(
    one: Callable[..., tuple[Tensor, ...]], count: int, grads: Params, params: Params, *moments: PyTree
) -> tuple[Params, ...]:
    """`one(grad, param, *moments)` for every parameter, matched by name: `count` dicts of what it returns.

    In the parameter's dtype: a float64 learning rate does not promote a float32 matrix, but it does a scalar. A complex
    parameter is a pair of real ones, as `torch.optim` has it.

    Raises:
        InputError: a gradient that is None, or gradients of another structure than the parameters.
    """

    def typed(grad: Tensor | None, param: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        if grad is None:
            raise InputError(
                f"the gradient of a parameter of shape {list(param.shape)} is None, as of one that has no part in the "
                "loss: torch.autograd.grad(…, materialize_grads=True) gives zeros"
            )
        if not param.is_complex():
            return tuple(value.to(param.dtype) for value in one(grad, param, *rest))
        pairs = [torch.view_as_real(value) if value.is_complex() else value for value in (grad, param, *rest)]
        found = [value.to(pairs[1].dtype) for value in one(*pairs)]
        return tuple(
            torch.view_as_complex(value.contiguous()) if value.shape == pairs[1].shape else value for value in found
        )

    try:
        return tree.map_unzip(typed, count, grads, params, *moments)
    except ValueError as error:
        ours, theirs = tree.sketch(grads), tree.sketch(params)
        if ours == theirs:
            raise
        raise InputError(f"gradients {ours} and parameters {theirs} differ in structure") from error
