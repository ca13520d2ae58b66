"""The gradient inside a learner's step, and the ways to differentiate it in turn.

A step that takes its gradient with `inner.gradient` leaves open how the second derivatives are found: the method of
the surrounding `metapl.unroll.unroll` says it. On the way back through g = ∇_θ L(θ, φ) a cotangent u becomes

    (∂g/∂θ)ᵀ u = D_u ∇_θ L    and    (∂g/∂φ)ᵀ u = D_u ∇_φ L,

since second derivatives are symmetric: one derivative of a gradient, along u. A `Product` is a way to take it.

Examples:
    >>> import torch
    >>> from metapl import inner
    >>> def loss(w, scale):
    ...     return scale * (w["w"] ** 2).sum(), ()
    >>> grads, _ = inner.gradient(loss, {"w": torch.tensor([1.0, 2.0])}, torch.tensor(0.5))
    >>> grads["w"]
    tensor([1., 2.])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from metapl import tree
from metapl.gradients import transforming
from metapl.types import Params, PyTree

Fn = Callable[..., tuple[Tensor, PyTree]]
"""`fn(params, *rest)`: a scalar, and a tree of tensors (aux) that come back as data."""

Leaves: TypeAlias = Sequence[Tensor]

Product = Callable[[Callable[..., tuple[Tensor, ...]], Leaves, Leaves], Sequence[Tensor | None]]
"""`product(gradient, at, along)`: the derivative of `gradient(*at)` along `along`, or Nones where it is dropped."""


def mixed(gradient: Callable[..., tuple[Tensor, ...]], at: Leaves, along: Leaves) -> Sequence[Tensor | None]:
    """Forward mode over reverse mode, as in MixFlow-MG (Kemaev et al., ICML 2025). Exact; cost: 2 F + 2 B."""
    return torch.func.jvp(gradient, tuple(at), tuple(along))[1]


def difference(radius: float = 0.01) -> Product:
    """Central differences, as in DARTS (Liu et al., ICLR 2019). Cost: 2 F + 2 B, and no second derivative anywhere.

    (gradient(θ + εu) − gradient(θ − εu)) / 2ε with ε = radius / |u|: the error is O(radius²).
    """

    def product(gradient: Callable[..., tuple[Tensor, ...]], at: Leaves, along: Leaves) -> Sequence[Tensor | None]:
        length = tree.norm(list(along))
        width = torch.where(length > 0, radius / torch.where(length > 0, length, 1.0), 0.0)
        above = gradient(*(p + width * u for p, u in zip(at, along, strict=True)))
        below = gradient(*(p - width * u for p, u in zip(at, along, strict=True)))
        factor = torch.where(length > 0, length / (2.0 * radius), 0.0)
        return [factor * (a - b) for a, b in zip(above, below, strict=True)]

    return product


def dropped(_gradient: Callable[..., tuple[Tensor, ...]], _at: Leaves, _along: Leaves) -> Sequence[Tensor | None]:
    """No second derivatives, as in first-order MAML (Finn et al., ICML 2017): the gradient counts as a constant."""
    return ()


_product: ContextVar[Product | None] = ContextVar("product", default=None)


@contextmanager
def differentiated_by(product: Product | None) -> Iterator[None]:
    """Within the block `gradient` is differentiated by this product; None is what autograd or torch.func would do."""
    token = _product.set(product)
    try:
        yield
    finally:
        _product.reset(token)


def gradient(fn: Fn, params: Params, *rest: PyTree) -> tuple[Params, PyTree]:
    """∇_params of `fn(params, *rest) -> (scalar, aux)`, differentiable in `params` and `rest`.

    What `fn` closes over is a constant. Under `torch.no_grad` nothing is recorded for a second derivative.

    Returns:
        The gradient, shaped as `params`, and aux, detached.
    """
    product = _product.get()
    if product is None:
        return _taken(fn, params, rest)
    leaves, structure = tree.flatten((params, rest))
    call = _Call(fn, structure, len(tree.leaves(params)), product, [])
    out = _Differentiated.apply(call, *leaves)
    grads = tree.unflatten(list(out[: call.count]), tree.flatten(params)[1])
    return grads, tree.detach(tree.unflatten(list(out[call.count :]), call.aux[0]))


def _taken(fn: Fn, params: Params, rest: Sequence[PyTree]) -> tuple[Params, PyTree]:
    if transforming():
        grads, aux = torch.func.grad(fn, has_aux=True)(params, *rest)
        return grads, tree.detach(aux)
    again = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tree.leaves((params, rest)))
    leaves, structure = tree.flatten(params)
    with torch.enable_grad():
        # A view, so that a tensor which is also among `rest` is told apart.
        at = [p.view_as(p) if again and p.requires_grad else p.detach().requires_grad_() for p in leaves]
        value, aux = fn(tree.unflatten(at, structure), *rest)
        if value.requires_grad:
            found = torch.autograd.grad(value, at, create_graph=again, allow_unused=True, materialize_grads=True)
        else:  # as torch.func has it: the gradient of a constant is zero
            found = tuple(torch.zeros_like(p) for p in leaves)
    return tree.unflatten(list(found), structure), tree.detach(aux)


@dataclass(frozen=True)
class _Call:
    """What `_Differentiated` needs beside tensors; `aux` takes the structure of aux out of it.

    Not a tuple: torch.vmap would take it apart as a tree, and fill the list of a copy.
    """

    fn: Fn
    structure: Any
    count: int
    product: Product
    aux: list[Any]


class _Differentiated(torch.autograd.Function):
    """A gradient, with a product in place of the graph that a second derivative would need."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *leaves: Tensor) -> tuple[Tensor, ...]:
        params, rest = tree.unflatten(list(leaves), call.structure)
        with differentiated_by(None):  # an approximate product must not reach the value of this gradient
            grads, aux = _taken(call.fn, params, rest)
        told, structure = tree.flatten(aux)
        call.aux[:] = [structure]
        given = {id(leaf) for leaf in leaves}
        # A copy where aux passes a tensor on: autograd wants outputs that are not inputs.
        return (*tree.leaves(grads), *(leaf.clone() if id(leaf) in given else leaf for leaf in told))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.call = inputs[0]
        ctx.mark_non_differentiable(*output[ctx.call.count :])
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        call: _Call = ctx.call
        saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        # All parameters or none of them: without them only the loss is on the way to the rest.
        wanted = [
            index for index, need in enumerate(needed) if need or (index < call.count and any(needed[: call.count]))
        ]

        def gradient(*at: Tensor) -> tuple[Tensor, ...]:
            def value(*moved: Tensor) -> tuple[Tensor, tuple[()]]:
                full = [*at, *saved[call.count :]]
                for index, leaf in zip(wanted, moved, strict=True):
                    full[index] = leaf
                params, rest = tree.unflatten(full, call.structure)
                return call.fn(params, *rest)[0], ()

            moving = [(*at, *saved[call.count :])[index] for index in wanted]
            return torch.func.grad(value, argnums=tuple(range(len(moving))), has_aux=True)(*moving)[0]

        with differentiated_by(None):
            found = iter(call.product(gradient, saved[: call.count], cotangents[: call.count]))
        grads: list[Tensor | None] = [None] * len(saved)
        for index in wanted:
            grads[index] = next(found, None)
        return (None, *grads)
