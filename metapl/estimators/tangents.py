"""Tangents of single operations whose results are known: what is cheaper than torch's forward mode, or fused.

A rule takes the arguments, of which the first ones are tensors, the tangents of these (None where there is none) and
the leaves of the result, and returns the tangent of the first result; `NotImplemented` leaves it to torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

Tangent: TypeAlias = Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], Any]
"""`tangent(given, moving, made)`: that of what was made first; None for zero."""


class Rule(NamedTuple):
    """The rule of an operation, and what it needs; of the rest it is given shapes, so that nobody keeps it."""

    tangent: Tangent
    arguments: bool = True
    """Whether it needs the arguments that are tensors."""
    results: tuple[int, ...] = ()
    """Which of the results it needs."""


_aten = torch.ops.aten


def _sum(*terms: Tensor | None) -> Tensor | None:
    """The sum of fresh tensors, in the place of the first."""
    present = [term for term in terms if term is not None]
    if not present:
        return None
    total, *rest = present
    for term in rest:
        total.add_(term)
    return total


def _convolution(given: Sequence[Any], moving: Sequence[Any], made: Sequence[Any]) -> Any:
    """conv(ẋ, W) + conv(x, Ẇ) + ḃ."""
    del made
    x, weight, _, *how = given
    x_moves, weight_moves, bias_moves = moving[:3]
    by_x = None if x_moves is None else torch.convolution(x_moves, weight, None, *how)
    by_weight = None if weight_moves is None else torch.convolution(x, weight_moves, bias_moves, *how)
    if weight_moves is None and bias_moves is not None:
        return NotImplemented
    return _sum(by_x, by_weight)


def _addmm(given: Sequence[Any], moving: Sequence[Any], made: Sequence[Any]) -> Any:
    """ḃ + ẋ W + x Ẇ."""
    if len(given) > 3:  # with factors
        return NotImplemented
    _, x, weight = given
    bias_moves, *rest = moving
    by_product = _mm((x, weight), rest, made)
    if bias_moves is None:
        return by_product
    return bias_moves.expand(made[0].shape).clone() if by_product is None else by_product.add_(bias_moves)


def _mm(given: Sequence[Any], moving: Sequence[Any], made: Sequence[Any]) -> Tensor | None:
    """ẋ W + x Ẇ, of matrices or of batches of them."""
    del made
    x, weight = given
    x_moves, weight_moves = moving
    return _sum(
        None if x_moves is None else torch.matmul(x_moves, weight),
        None if weight_moves is None else torch.matmul(x, weight_moves),
    )


def _batch_norm(given: Sequence[Any], moving: Sequence[Any], made: Sequence[Any]) -> Any:
    """γ ẋ' + γ̇ x' + β̇, with x' the normalised x.

    The Jacobian of x' is symmetric, so that its product with ẋ is what the backward of batch norm makes of ẋ.
    """
    x, weight, _, mean, variance, training, _, eps = given
    x_moves, weight_moves, bias_moves = moving[:3]
    _, center, scale = made
    if not training:
        center, scale = mean, torch.rsqrt(variance + eps)
    found = None
    if x_moves is not None:
        mask = [True, False, False]
        found = _aten.native_batch_norm_backward(
            x_moves, x, weight, mean, variance, center, scale, training, eps, mask
        )[0]
    if weight_moves is not None:
        unit = torch.ones_like(center)
        slope = weight_moves * scale
        shift = -center * slope if bias_moves is None else bias_moves - center * slope
        # As batch norm has it, with numbers that make of it slope · x + shift: one pass.
        by_scale = torch.native_batch_norm(x, slope, shift, torch.zeros_like(unit), unit, False, 0.0, 0.0)[0]
        found = _sum(found, by_scale)
    elif bias_moves is not None:
        return NotImplemented
    return found


def _group_norm(given: Sequence[Any], moving: Sequence[Any], made: Sequence[Any]) -> Any:
    """γ ẋ' + γ̇ x' + β̇, with x' the normalised x, whose Jacobian is symmetric as that of batch norm is."""
    x, weight, _, *sizes, eps = given
    x_moves, weight_moves, bias_moves = moving[:3]
    _, center, scale = made
    channels = (-1, *(1,) * (x.ndim - 2))
    found = None
    if x_moves is not None:
        mask = [True, False, False]
        found = _aten.native_group_norm_backward(x_moves, x, center, scale, None, *sizes, mask)[0]
        found = found if weight is None else found * weight.reshape(channels)
    if weight_moves is not None:
        found = _sum(found, _aten.native_group_norm(x, weight_moves, bias_moves, *sizes, eps)[0])
    elif bias_moves is not None:
        return NotImplemented
    return found


def _leaky_relu(given: Sequence[Any], moving: Sequence[Any], made: Sequence[Any]) -> Tensor | None:
    """ẋ where x > 0, and slope · ẋ elsewhere; x has the sign of the result, which is kept for the next layer anyway."""
    _, *slope = given
    if slope and slope[0] < 0.0:
        raise RuntimeError("leaky_relu of a negative slope")
    found: Tensor = _aten.leaky_relu_backward(moving[0], made[0], slope[0] if slope else 0.01, True)
    return found


def _relu(given: Sequence[Any], moving: Sequence[Any], made: Sequence[Any]) -> Tensor | None:
    """ẋ where x > 0, and 0 elsewhere."""
    del given
    found: Tensor = _aten.threshold_backward(moving[0], made[0], 0)
    return found


def _add(given: Sequence[Any], moving: Sequence[Any], made: Sequence[Any]) -> Any:
    """ȧ + ḃ."""
    del given
    present = [one.to(made[0].dtype).expand(made[0].shape) for one in moving if one is not None]
    return present[0] if len(present) == 1 else torch.add(*present)


RULES: dict[Any, Rule] = {
    _aten.convolution.default: Rule(_convolution),
    _aten.addmm.default: Rule(_addmm),
    _aten.mm.default: Rule(_mm),
    _aten.bmm.default: Rule(_mm),
    _aten.native_batch_norm.default: Rule(_batch_norm, results=(1, 2)),
    _aten.native_group_norm.default: Rule(_group_norm, results=(1, 2)),
    _aten.leaky_relu.default: Rule(_leaky_relu, arguments=False, results=(0,)),
    _aten.relu.default: Rule(_relu, arguments=False, results=(0,)),
    _aten.add.Tensor: Rule(_add, arguments=False),
}
"""The rules by operation."""
