"""Products with second derivatives, as differentiable functions of trees.

Examples:
    >>> import torch
    >>> from metapl.core import products
    >>> products.hvp(lambda w: (w**3).sum(), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))
    tensor([ 6., 12.])
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from metapl.core import forward_mode, inside, tree
from metapl.core.types import PyTree
from metapl.registry.errors import InputError


def hvp(loss: Callable[[PyTree], Tensor], params: PyTree, along: PyTree) -> PyTree:
    """∂² loss / ∂params² · along, for `loss(params)`, a scalar. Cost: 2 F + 2 B.

    Raises:
        InputError: `along` is not shaped as `params`.
    """
    _require_direction(params, along)

    def slope(params: PyTree) -> Tensor:
        return tree.dot(inside.gradient(loss, params)[0], along)

    return inside.gradient(slope, params)[0]


def ggn(forward: Callable[[PyTree], PyTree], loss: Callable[[PyTree], Tensor], params: PyTree, along: PyTree) -> PyTree:
    """Jᵀ H J · along: the generalised Gauss-Newton matrix of loss(forward(params)) (Schraudolph, 2002).

    J is the Jacobian of `forward` at `params`, and H the Hessian of `loss`, a scalar, at the outputs. It is positive
    semidefinite where `loss` is convex, as the Hessian is not, and equals it where `forward` is linear. Cost: a jvp and
    a vjp of the network.

    Raises:
        InputError: `along` is not shaped as `params`.
    """
    _require_direction(params, along)
    outputs, moved = forward_mode.jvp(forward, (params,), (along,))
    curved = hvp(loss, outputs, moved)
    return inside.gradient(lambda params: tree.dot(curved, forward(params)), params)[0]


def _require_direction(params: PyTree, along: PyTree) -> None:
    """Refuse a direction of other shapes, which would be broadcast."""
    tree.require_smooth(params, "params")
    tree.require_smooth(along, "along")
    ours, theirs = (tree.map(lambda leaf: list(leaf.shape), one) for one in (params, along))
    if ours != theirs:
        raise InputError(f"along must be shaped as params, {ours}: it is {theirs}")
