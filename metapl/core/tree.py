"""Arithmetic on pytrees of tensors.

Examples:
    >>> import torch
    >>> from metapl.core import tree
    >>> tree.dot({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
    tensor(11.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from metapl.core.torch_private import pytree
from metapl.core.types import PyTree
from metapl.registry.errors import InputError

flatten = pytree.tree_flatten
"""`flatten(tree)`: the leaves as a list, and the structure that `unflatten` takes."""

unflatten = pytree.tree_unflatten
"""`unflatten(leaves, structure)`: the inverse of `flatten`."""

leaves = pytree.tree_leaves
"""`leaves(tree)`: the leaves as a list."""


def paths(tree: PyTree) -> list[str]:
    """Where each leaf stands, such as ".student.params['weight']"; in the order of `leaves`."""
    return [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(tree)[0]]


def map(fn: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:  # noqa: A001 - read as tree.map
    """Apply `fn` to every leaf of `tree`, with the leaves of `rest` (same structure) beside it."""
    return pytree.tree_map(fn, tree, *rest)


def map_unzip(fn: Callable[..., tuple[Any, ...]], count: int, tree: PyTree, *rest: PyTree) -> tuple[PyTree, ...]:
    """`map` for an `fn` that returns `count` values: one tree for each of them."""
    first, structure = flatten(tree)
    results = [fn(*args) for args in zip(first, *(structure.flatten_up_to(other) for other in rest), strict=True)]
    columns = zip(*results, strict=True) if results else ((),) * count
    return tuple(unflatten(list(column), structure) for column in columns)


def add(a: PyTree, b: PyTree) -> PyTree:
    """a + b, leaf by leaf."""
    return map(torch.add, a, b)


def sub(a: PyTree, b: PyTree) -> PyTree:
    """a − b, leaf by leaf."""
    return map(torch.sub, a, b)


def scale(factor: float | Tensor, tree: PyTree) -> PyTree:
    """`factor` times every leaf."""
    return map(lambda leaf: leaf * factor, tree)


def differentiable(leaf: Any) -> bool:
    """Whether derivatives are taken with respect to a leaf: a tensor of real or complex numbers, not of integers."""
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def require_tensors(tree: PyTree, what: str) -> None:
    """Refuse a tree of which a leaf is no tensor; `what` is what the caller calls it.

    Raises:
        InputError: with the place of the first such leaf, and what to do.
    """
    if all(isinstance(leaf, Tensor) for leaf in leaves(tree)):
        return
    place, leaf = next(
        (place, leaf) for place, leaf in zip(paths(tree), leaves(tree), strict=True) if not isinstance(leaf, Tensor)
    )
    if isinstance(leaf, nn.Module):
        remedy = "take dict(module.named_parameters()), or metapl's from_module"
    elif isinstance(leaf, Iterator):
        remedy = "make a list of it"
    else:
        remedy = "make it a tensor, by torch.as_tensor(…)"
    where = f"{what} at {place}" if place else what
    raise InputError(f"{where}: {type(leaf).__name__} is no tensor: {remedy}")


def require_smooth(tree: PyTree, what: str) -> None:
    """Refuse a tree of which a leaf is no tensor, or one of integers, with respect to which nothing is differentiated.

    Raises:
        InputError: with the place of the first such leaf, and what to do.
    """
    if all(differentiable(leaf) for leaf in leaves(tree)):
        return
    require_tensors(tree, what)
    place, leaf = next(
        (place, leaf) for place, leaf in zip(paths(tree), leaves(tree), strict=True) if not differentiable(leaf)
    )
    where = f"{what} at {place}" if place else what
    raise InputError(f"{where}: a tensor of {leaf.dtype} has no gradient: pass it apart, or make it one of floats")


def dot(a: PyTree, b: PyTree) -> Tensor:
    """The inner product ⟨a, b⟩ over all leaves, a real scalar. Dicts are matched by name, whatever their order.

    Of complex leaves Re Σ conj(a) b, their inner product as pairs of real numbers: with torch's gradient g of a real
    function, ⟨g, u⟩ is its derivative along u.
    """

    def product(x: Tensor, y: Tensor) -> Tensor:
        return (x.conj() * y).real.sum() if x.is_complex() or y.is_complex() else (x * y).sum()

    products = leaves(map(product, a, b))
    return torch.stack(products).sum() if products else torch.zeros(())


def norm(tree: PyTree) -> Tensor:
    """The Euclidean norm over all leaves, a scalar. Its gradient at zero is zero, not NaN."""
    return safe_sqrt(dot(tree, tree))


def safe_sqrt(x: Tensor) -> Tensor:
    """√x with the gradient 0 at x = 0, where torch gives infinity (and 0 · ∞ = NaN one step later)."""
    positive = x > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, x, torch.ones_like(x))), torch.zeros_like(x))


def safe_divide(a: float | Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is not positive, with the gradient 0 there."""
    positive = b > 0
    return torch.where(positive, a / torch.where(positive, b, 1.0), 0.0)


def zeros_like(tree: PyTree) -> PyTree:
    """Zeros shaped as `tree`."""
    return map(torch.zeros_like, tree)


def detach(tree: PyTree) -> PyTree:
    """The same values, cut from any graph."""
    return map(torch.Tensor.detach, tree)


def to(tree: PyTree, target: torch.dtype | torch.device | str) -> PyTree:
    """Move the leaves to a device, or cast the floating-point ones to a dtype, complex ones to as many digits."""
    if not isinstance(target, torch.dtype):
        return map(lambda leaf: leaf.to(target), tree)

    def cast(leaf: Tensor) -> Tensor:
        if not differentiable(leaf):
            return leaf
        return leaf.to(target.to_complex() if leaf.is_complex() else target)

    return map(cast, tree)


def lerp(start: PyTree, end: PyTree, weight: float | Tensor) -> PyTree:
    """start + weight · (end − start) for real and complex leaves; other leaves (counters) are taken from `end`."""
    return map(lambda a, b: a + weight * (b - a) if differentiable(a) else b, start, end)


def size(tree: PyTree) -> int:
    """How many numbers the tree holds."""
    return sum(leaf.numel() for leaf in leaves(tree))


def sketch(tree: PyTree) -> str:
    """The structure of a tree in one line, for messages, with a * for each leaf.

    >>> sketch({"w": torch.zeros(3), "rest": (torch.zeros(()), ())})
    "{'w': *, 'rest': (*, ())}"
    """
    return repr(map(lambda _: "*", tree)).replace("'*'", "*")
