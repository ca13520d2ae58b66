"""The gradient inside of an inner step.

A step that takes its gradient with `inside.gradient` leaves open how the second derivatives are found: the method of
the surrounding `metapl.core.unrolling.unroll` sets a rule for Hessian-vector products, see `metapl.core.hvp`.

Examples:
    >>> import torch
    >>> from metapl.core import inside
    >>> def loss(w, scale):
    ...     return scale * (w["w"] ** 2).sum(), ()
    >>> grads, _ = inside.gradient(loss, {"w": torch.tensor([1.0, 2.0])}, torch.tensor(0.5))
    >>> grads["w"]
    tensor([1., 2.])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metapl.core import autodiff, closures, hvp, torch_private, tree
from metapl.core.hvp import Leaves
from metapl.core.types import PyTree
from metapl.core.written_out import norms_written_out

Fn = Callable[..., Tensor | tuple[Tensor, PyTree]]
"""`fn(params, *rest)`: a scalar, and a tree of tensors (aux) that come back as data; or the scalar alone."""


def gradient(fn: Fn, params: PyTree, *rest: PyTree) -> tuple[PyTree, PyTree]:
    """∇_params of `fn(params, *rest) -> (scalar, aux)`, differentiable in `params`, in `rest` and in what `fn` holds.

    Under `torch.no_grad` nothing is recorded for a second derivative. Inside of a `torch.vmap` that is differentiated
    normalisation layers are written out, as torch's own second derivative of theirs is wrong there
    (`metapl.core.written_out`).

    Returns:
        The gradient, shaped as `params`, and aux, detached: nothing flows back through it. A sum of training losses
        that is to be differentiated takes the value of `value_and_gradient`.

    Raises:
        ValueError: `fn` does not return a scalar, or aux has a leaf that is not a tensor.
        InputError: `params` has a leaf that is no tensor of real or complex numbers.
    """
    _, aux, grads = value_and_gradient(fn, params, *rest)
    return grads, aux


def value_and_gradient(fn: Fn, params: PyTree, *rest: PyTree) -> tuple[Tensor, PyTree, PyTree]:
    """As `gradient`, with the scalar itself, as differentiable as the gradient is: the value, aux, and the gradient.

    The order is that of `metapl.core.autodiff.value_and_grad`, and of `jax.value_and_grad` with aux.

    Cost: that of `gradient`; on the way back one gradient more where something flows back to the value.
    """
    tree.require_smooth(params, "the params of an inner gradient")
    rule = hvp.current()
    leaves, structure = tree.flatten((params, rest))
    if rule is None:
        return _taken(fn, params, rest, across=_across_vmap(fn, leaves))
    held = [tensor for _, tensor in closures.captured(fn)]
    call = _Call(fn, structure, len(tree.leaves(params)), held, rule, [])
    value, *out = _Differentiated.apply(call, *leaves, *held)  # type: ignore[no-untyped-call]
    grads = tree.unflatten(out[: call.count], tree.flatten(params)[1])
    return value, tree.detach(tree.unflatten(out[call.count :], call.aux[0])), grads


def _called(fn: Fn, params: PyTree, rest: Sequence[PyTree]) -> tuple[Tensor, PyTree]:
    found = fn(params, *rest)
    pair = isinstance(found, tuple | list) and len(found) == 2
    value, aux = found if pair else (found, ())
    if not isinstance(value, Tensor) or value.ndim:
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the loss of an inner gradient must be a scalar tensor, it is {shape}: take its mean")
    strange = next((leaf for leaf in tree.leaves(aux) if not isinstance(leaf, Tensor)), None)
    if strange is not None:
        raise ValueError(f"aux of a loss must be a tree of tensors, it has {strange!r}, a {type(strange).__name__}")
    return value, aux


def _across_vmap(fn: Fn, leaves: Leaves) -> bool:
    """Whether a `torch.vmap` runs here inside of what is differentiated: by a leaf, or by a tensor that `fn` holds."""
    if not torch_private.inside_vmap():
        return False
    across = torch_private.across_vmap
    return across(leaves) or across([tensor for _, tensor in closures.captured(fn)])


def _taken(fn: Fn, params: PyTree, rest: Sequence[PyTree], *, across: bool = False) -> tuple[Tensor, PyTree, PyTree]:
    """The value, its gradient and aux; `across` says that the derivative of torch's own norms would be wrong here."""
    if torch_private.inside_transform():

        def valued(params: PyTree) -> tuple[Tensor, tuple[Tensor, PyTree]]:
            with norms_written_out() if across or torch.compiler.is_compiling() else nullcontext():
                value, aux = _called(fn, params, rest)
            return value, (value, aux)

        grads, (value, aux) = torch.func.grad(valued, has_aux=True)(params)
        return value, tree.detach(aux), grads
    leaves, structure = tree.flatten(params)
    again = torch.is_grad_enabled() and (
        any(leaf.requires_grad for leaf in tree.leaves((params, rest))) or bool(closures.captured(fn))
    )
    with torch.enable_grad():
        # A view, so that a tensor which is also among `rest` is told apart.
        at = [p.view_as(p) if again and p.requires_grad else p.detach().requires_grad_() for p in leaves]
        value, aux = _called(fn, tree.unflatten(at, structure), rest)
        if value.requires_grad:
            found = torch.autograd.grad(value, at, create_graph=again, materialize_grads=True)
            if again and any(map(torch_private.is_function, autodiff.nodes([value], at))):
                autodiff.require_twice(found)
        else:  # as torch.func has it: the gradient of a constant is zero
            found = tuple(torch.zeros_like(p) for p in leaves)
    return value if again else value.detach(), tree.detach(aux), tree.unflatten(list(found), structure)


@dataclass(frozen=True)
class _Call:
    """What `_Differentiated` needs beside tensors; `aux` takes the structure of aux out of it.

    Not a tuple: torch.vmap would take it apart as a tree, and fill the list of a copy.
    """

    fn: Fn
    structure: Any
    count: int
    held: Sequence[Tensor]
    """What `fn` holds and what gradients flow to: it goes in as arguments, after the leaves."""
    rule: hvp.Rule | None
    aux: list[Any]

    def split(self, leaves: Leaves) -> tuple[Fn, PyTree, Sequence[PyTree]]:
        """The function with these tensors in place of those it holds, its parameters and its other arguments."""
        size = len(leaves) - len(self.held)
        params, rest = tree.unflatten(list(leaves[:size]), self.structure)
        swap = {id(old): new for old, new in zip(self.held, leaves[size:], strict=True)}
        return closures.swapped(self.fn, swap) if swap else self.fn, params, rest


class _Differentiated(torch.autograd.Function):
    """A value and its gradient, with a rule in place of the graph that a second derivative would need."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *leaves: Tensor) -> tuple[Tensor, ...]:
        with hvp.using(None):  # an approximate rule must not reach the value of this gradient
            value, aux, grads = _taken(*call.split(leaves))
        passed, structure = tree.flatten(aux)
        call.aux[:] = [structure]
        # A copy of an argument that is the value: autograd wants outputs that are not inputs. Aux is detached anyway.
        given = {id(leaf) for leaf in leaves}
        return (value.clone() if id(value) in given else value, *tree.leaves(grads), *passed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.call = inputs[0]
        ctx.mark_non_differentiable(*output[1 + ctx.call.count :])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, to_value: Tensor | None, *cotangents: Tensor | None) -> tuple[Any, ...]:
        call: _Call = ctx.call
        saved = torch_private.unwrap_dead(ctx.saved_tensors)
        if not torch.is_grad_enabled():  # so that nothing is recorded: forward mode enables it within
            saved = [leaf.detach() for leaf in saved]
        needed = ctx.needs_input_grad[1:]
        # All parameters or none of them: without them only the loss is on the way to the rest.
        wanted = [
            index for index, need in enumerate(needed) if need or (index < call.count and any(needed[: call.count]))
        ]

        at = _Point(lambda *leaves: _called(*call.split(leaves))[0], saved, call.count, wanted)
        found: list[Tensor | None] = [None] * len(wanted)
        with hvp.using(None):
            to_grads = list(zip(saved[: call.count], cotangents[: call.count], strict=True))
            if any(u is not None for _, u in to_grads):
                along = [torch.zeros_like(p) if u is None else u for p, u in to_grads]
                second = iter(at.second(along, call.rule))
                found = [next(second, None) for _ in wanted]  # none of them where it is stopped
            if to_value is not None:
                first = at.gradient(*saved[: call.count])
                found = [to_value * b if a is None else a + to_value * b for a, b in zip(found, first, strict=True)]
        grads: list[Tensor | None] = [None] * len(saved)
        for index, grad in zip(wanted, found, strict=True):
            grads[index] = grad
        return (None, *grads)


class _Point(NamedTuple):
    """A loss at its arguments, some of which derivatives are wanted for."""

    loss: Callable[..., Tensor]
    leaves: Leaves
    size: int
    """How many of them are parameters: the first ones."""
    wanted: Sequence[int]

    def gradient(self, *params: Tensor) -> tuple[Tensor, ...]:
        """At other parameters: the gradient with respect to what is wanted."""
        return self._along([*params, *self.leaves[self.size :]], self.wanted)

    def _along(self, leaves: Leaves, moving: Sequence[int]) -> tuple[Tensor, ...]:
        def moved(*values: Tensor) -> Tensor:
            return self.loss(*_with(leaves, moving, values))

        at = [leaves[index] for index in moving]
        found: tuple[Tensor, ...] = torch.func.grad(moved, argnums=tuple(range(len(at))))(*at)
        return found

    def second(self, along: Leaves, rule: hvp.Rule | None) -> Sequence[Tensor | None]:
        """The derivative of the gradient along `along`, a direction of the parameters."""
        if rule:
            return rule(self.gradient, self.leaves[: self.size], along)

        def along_u(*values: Tensor) -> Tensor:
            grads = self._along(_with(self.leaves, self.wanted, values), range(self.size))
            return tree.dot(list(grads), list(along))

        # Not by torch.func.vjp: its way back comes after its transform, where torch 2.14 refuses BatchNorm under vmap.
        at = [self.leaves[index] for index in self.wanted]
        found: Sequence[Tensor] = torch.func.grad(along_u, argnums=tuple(range(len(at))))(*at)
        return found


def _with(leaves: Leaves, places: Sequence[int], values: Leaves) -> list[Tensor]:
    fresh = list(leaves)
    for index, value in zip(places, values, strict=True):
        fresh[index] = value
    return fresh
