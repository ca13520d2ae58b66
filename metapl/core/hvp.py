"""Rules for Hessian-vector products: how a gradient inside of a step is differentiated in turn.

For g = ∇_w L(w, θ) and a cotangent u of it, second derivatives are symmetric, so that

    (∂g/∂w)ᵀ u = D_u ∇_w L    and    (∂g/∂θ)ᵀ u = D_u ∇_θ L:

one derivative of a gradient, along u. Reverse mode over reverse mode is the rule where none is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from metapl.core import forward_mode, tree
from metapl.registry.errors import InputError

Leaves: TypeAlias = Sequence[Tensor]
"""The tensors at the leaves of a tree."""

Gradient: TypeAlias = Callable[..., tuple[Tensor, ...]]
"""`gradient(*params)`: what is differentiated once more."""

Rule: TypeAlias = Callable[[Gradient, Leaves, Leaves], Sequence[Tensor | None]]
"""`rule(gradient, at, along)`: the derivative of `gradient(*at)` along `along`; nothing where it counts as zero."""


def forward_over_reverse(gradient: Gradient, at: Leaves, along: Leaves) -> Sequence[Tensor | None]:
    """Forward mode over reverse mode, as in MixFlow-MG (Kemaev et al., ICML 2025). Exact; cost: 2 F + 2 B."""
    found: Sequence[Tensor] = forward_mode.jvp(gradient, at, along)[1]
    return found


def difference(radius: float = 0.01) -> Rule:
    """Central differences, as in DARTS (Liu et al., ICLR 2019). Cost: 2 F + 2 B, and no second derivative anywhere.

    (gradient(w + εu) − gradient(w − εu)) / 2ε with ε = radius / |u|: the error is O(radius²).
    """
    return partial(_difference, radius)


def _difference(radius: float, gradient: Gradient, at: Leaves, along: Leaves) -> Sequence[Tensor | None]:
    length = tree.norm(list(along))
    width = tree.safe_divide(radius, length)
    above = gradient(*tree.add(list(at), tree.scale(width, list(along))))
    below = gradient(*tree.sub(list(at), tree.scale(width, list(along))))
    found: list[Tensor] = tree.scale(length / (2.0 * radius), tree.sub(list(above), list(below)))
    return found


def stopped(_gradient: Gradient, _at: Leaves, _along: Leaves) -> Sequence[Tensor | None]:
    """No second derivatives, as in first-order MAML (Finn et al., ICML 2017): the gradient counts as a constant."""
    return ()


_rule: ContextVar[Rule | None] = ContextVar("rule", default=None)


def current() -> Rule | None:
    """The rule that is set, or None; under `torch.compile` none is."""
    return None if torch.compiler.is_compiling() else _rule.get()


@contextmanager
def using(rule: Rule | None) -> Iterator[None]:
    """Within the block `inside.gradient` is differentiated by this rule; None: as autograd or torch.func does it.

    Raises:
        InputError: a rule under `torch.compile`.
    """
    if torch.compiler.is_compiling():
        if rule is not None:
            raise InputError("torch.compile takes exact second derivatives only: method='replay', not an approximation")
        yield
        return
    token = _rule.set(rule)
    try:
        yield
    finally:
        _rule.reset(token)
