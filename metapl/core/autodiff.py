"""Gradients that nobody differentiates again.

`torch.func.grad` always records a graph for a second derivative: 1.3 times the time and 1.7 times the memory of
a plain backward pass on a wide ResNet. Where the result is data, these helpers use `torch.autograd` on detached
leaves instead, and return detached values. They are pure: the leaves are fresh, no `.grad` is written.

`torch.autograd` does not work inside a `torch.func` transform, such as `torch.vmap` over draws or seeds. There the
helpers go by `torch.func.vjp`, and return the same.

Forward mode is in `metapl.core.forward_mode`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from metapl.core import torch_private, tree
from metapl.core.types import PyTree
from metapl.registry.errors import InputError

Vjp: TypeAlias = Callable[[PyTree], PyTree]
"""From a cotangent of the output to one of what it was evaluated at."""


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tree.differentiable(tensor))


def _detach(value: PyTree) -> PyTree:
    return tree.map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, value)


def vjp(fn: Callable[[PyTree], tuple[PyTree, PyTree]], at: PyTree, *, keep: bool = False) -> tuple[PyTree, PyTree, Vjp]:
    """Evaluate `fn(at) -> (output, aux)`, and keep the vector-Jacobian product of the output.

    Raises:
        InputError: a leaf of `at` is no tensor.

    Returns:
        The output and aux, detached, and the vjp: of a cotangent it returns the gradient of ⟨output, cotangent⟩ with
        respect to `at` (zeros where `fn` does not depend on it). It can be called once, since it frees the graph,
        unless `keep` is set.
    """
    tree.require_tensors(at, "the point of a derivative")
    return (_transformed if torch_private.inside_transform() else _recorded)(fn, at, keep)


def _recorded(fn: Callable[[PyTree], tuple[PyTree, PyTree]], at: PyTree, keep: bool) -> tuple[PyTree, PyTree, Vjp]:
    with torch.enable_grad():
        leaves = tree.map(_leaf, at)
        output, aux = fn(leaves)

    def back(cotangent: PyTree) -> PyTree:
        inputs, structure = tree.flatten(leaves)
        wanted = [leaf for leaf in inputs if leaf.requires_grad]
        all_outputs, form = tree.flatten(output)
        outputs = [leaf for leaf in all_outputs if leaf.requires_grad]
        arriving = form.flatten_up_to(cotangent)  # by name, whatever the order of a dict
        cotangents = [c for c, leaf in zip(arriving, all_outputs, strict=True) if leaf.requires_grad]
        if outputs:
            pulled = torch.autograd.grad(outputs, wanted, cotangents, retain_graph=keep, materialize_grads=True)
            found = iter(pulled)
        else:
            found = iter(torch.zeros_like(leaf) for leaf in wanted)
        grads = [next(found) if leaf.requires_grad else torch.zeros_like(leaf) for leaf in inputs]
        return tree.unflatten(grads, structure)

    return _detach(output), _detach(aux), back


def _transformed(fn: Callable[[PyTree], tuple[PyTree, PyTree]], at: PyTree, _keep: bool) -> tuple[PyTree, PyTree, Vjp]:
    inputs, structure = tree.flatten(at)
    moving = [index for index, leaf in enumerate(inputs) if tree.differentiable(leaf)]

    found: list[PyTree] = []  # what torch.func takes no derivative of, such as integers, is in it too

    def moved(*leaves: Tensor) -> tuple[Tensor, ...]:
        full = list(inputs)
        for index, leaf in zip(moving, leaves, strict=True):
            full[index] = leaf
        found[:] = fn(tree.unflatten(full, structure))
        return tuple(leaf for leaf in tree.leaves(found[0]) if tree.differentiable(leaf))

    through = torch.func.vjp(moved, *(inputs[index].detach() for index in moving))[1]
    # Detaching also takes the wrappers away, of the transform that has ended here.
    output, aux = _detach(found)
    out, out_structure = tree.flatten(output)
    smooth = [tree.differentiable(leaf) for leaf in out]

    def back(cotangent: PyTree) -> PyTree:
        grads = [torch.zeros_like(leaf) for leaf in inputs]
        arriving = zip(out_structure.flatten_up_to(cotangent), smooth, strict=True)
        for index, grad in zip(moving, through(tuple(c for c, is_smooth in arriving if is_smooth)), strict=True):
            grads[index] = grad.detach()
        return tree.unflatten(grads, structure)

    return output, aux, back


def value_and_grad(fn: Callable[[PyTree], Tensor | tuple[Tensor, PyTree]], at: PyTree) -> tuple[Tensor, PyTree, PyTree]:
    """The value, aux and gradient at `at` of `fn(at) -> (scalar, aux)`, all detached; aux is () of a scalar alone.

    Raises:
        ValueError: `fn` does not return a scalar.
        InputError: a leaf of `at` is no tensor, or torch lacks a derivative within.
    """

    def paired(at: PyTree) -> tuple[Tensor, PyTree]:
        found = fn(at)
        return found if isinstance(found, tuple | list) and len(found) == 2 else (found, ())

    with explained():
        value, aux, back = vjp(paired, at)
        if not isinstance(value, Tensor) or value.ndim:
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"value_and_grad() takes a function that returns a scalar, not {found}: take its mean")
        return value, aux, back(torch.ones_like(value))


_LACKING = re.compile(r"(?:the )?derivative for '?([\w:]+)'? is not implemented")
_REMEDIES = {
    "saved tensor hooks": "torch.utils.checkpoint does not work inside of torch.func: take exact() or unroll()",
    "must override the setup_context": "an autograd function without setup_context does not work inside of torch.func: "
    "take exact() or unroll()",
    "for sparse tensors": "a sparse gradient cannot be differentiated again: look up with sparse=False",
    "use_reentrant=True": "torch.utils.checkpoint(use_reentrant=True) is for .backward() alone: use_reentrant=False",
}


@contextmanager
def explained() -> Iterator[None]:
    """Say in one line what to do where torch cannot take a derivative, such as the second one of flash attention."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        text = str(error)
        lacking = _LACKING.search(text)
        remedy = next((remedy for mark, remedy in _REMEDIES.items() if mark in text), None)
        if lacking:
            attention = "scaled_dot_product" in lacking[1]
            kernel = "; or attention within torch.nn.attention.sdpa_kernel(SDPBackend.MATH)" if attention else ""
            remedy = (
                f"torch lacks the second derivative of {lacking[1]}: take an estimator that needs none, difference() "
                f"or first_order(), or method='difference' of scan and hypergradient{kernel}"
            )
        if remedy is None:
            raise
        raise InputError(remedy) from error


def require_twice(grads: Iterable[Tensor]) -> None:
    """Refuse gradients that are cut off from what they depend on by an `autograd.Function` of one derivative.

    `once_differentiable` leaves an error for a second derivative, on a branch that the way back to other
    arguments never meets: their derivative would be wrong without it.
    """
    if any(map(torch_private.is_once_differentiable, nodes(grads))):
        raise InputError(
            "the network has an autograd function that is once_differentiable: take an estimator that needs no second "
            "derivative, difference() or first_order()"
        )


def observing(hook: Callable[[Tensor], Tensor | None]) -> Callable[[Tensor], None]:
    """A hook on a gradient that may look at it, and raises an `InputError` if it changes it.

    What it makes of a gradient is no derivative, and it would run again whenever something goes back through its place.
    """

    def checked(grad: Tensor) -> None:
        if hook(grad) is not None:
            raise InputError("a hook of the network changes a gradient, which is no derivative then: remove the hook")

    return checked


def nodes(outputs: Iterable[Tensor], ends: Iterable[Tensor] = ()) -> list[Any]:
    """The nodes of the graph that autograd has recorded for these tensors, down to those that made `ends`."""
    stops = {end.grad_fn for end in ends}
    waiting: list[Any] = [output.grad_fn for output in outputs if output.grad_fn not in {None, *stops}]
    seen = {*waiting, *stops}
    found = []
    while waiting:
        node = waiting.pop()
        found.append(node)
        fresh = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= fresh
        waiting += fresh
    return found
