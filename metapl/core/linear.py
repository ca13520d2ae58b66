"""Solvers of linear equations A q = v, where A is a function and q a tree: values for `metapl.core.implicit`.

Each constructor returns `solve(apply, v)`. All take a fixed number of iterations, so that they run under `torch.vmap`;
once the residual is zero an iterate stays as it is.

Examples:
    >>> import torch
    >>> from metapl.core import linear
    >>> linear.cg(iterations=2)(lambda q: torch.tensor([2.0, 4.0]) * q, torch.tensor([1.0, 1.0]))
    tensor([0.5000, 0.2500])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from metapl.core import autodiff, tree
from metapl.core.types import PyTree

Linear: TypeAlias = Callable[[PyTree], PyTree]
"""A linear map of trees."""

Solver: TypeAlias = Callable[[Linear, PyTree], PyTree]
"""`solve(apply, v)`: (about) the q with apply(q) = v, shaped as v."""


def damped(apply: Linear, damping: float) -> Linear:
    """q ↦ apply(q) + damping · q."""
    return (lambda q: tree.add(apply(q), tree.scale(damping, q))) if damping else apply


def cg(*, iterations: int = 50, damping: float = 0.0) -> Solver:
    """Conjugate gradients from zero (Hestenes and Stiefel, 1952), for a symmetric positive definite A + damping.

    Exact after as many iterations as there are numbers, up to rounding. Cost: one product with A an iteration.
    """
    return lambda apply, v: _conjugate_gradients(damped(apply, damping), v, iterations)


def _conjugate_gradients(apply: Linear, v: PyTree, iterations: int) -> PyTree:
    q = tree.zeros_like(v)
    residual = direction = v
    square = tree.dot(residual, residual)
    for _ in range(iterations):
        applied = apply(direction)
        step = _ratio(square, tree.dot(direction, applied))
        q = tree.add(q, tree.scale(step, direction))
        residual = tree.sub(residual, tree.scale(step, applied))
        before, square = square, tree.dot(residual, residual)
        direction = tree.add(residual, tree.scale(_ratio(square, before), direction))
    return q


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0, with the gradient 0 there."""
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))


def neumann(*, iterations: int = 50, rate: float = 1.0, damping: float = 0.0) -> Solver:
    """q = rate Σ_{i < iterations} (1 − rate (A + damping))ⁱ v (Lorraine et al., AISTATS 2020).

    It converges where the eigenvalues of 1 − rate (A + damping) are inside the unit circle: for a symmetric A, with
    rate < 2 / (its largest eigenvalue + damping). Cost: one product with A an iteration but the first.
    """
    return lambda apply, v: _neumann(damped(apply, damping), v, iterations, rate)


def _neumann(apply: Linear, v: PyTree, iterations: int, rate: float) -> PyTree:
    term = tree.scale(rate, v)
    q = term
    for _ in range(iterations - 1):
        term = tree.sub(term, tree.scale(rate, apply(term)))
        q = tree.add(q, term)
    return q


def gmres(*, iterations: int = 20, damping: float = 0.0) -> Solver:
    """The q of least residual in the Krylov space of v (Saad and Schultz, 1986), for any A + damping.

    Exact after as many iterations as there are numbers, up to rounding. Without restarts: the memory of `iterations`
    trees. Cost: one product with A an iteration.
    """
    return lambda apply, v: _generalised_residuals(damped(apply, damping), v, iterations)


def _generalised_residuals(apply: Linear, v: PyTree, iterations: int) -> PyTree:
    length = tree.norm(v)
    basis = [_normalised(v, length, length)]
    images = []
    for _ in range(iterations):
        image = apply(basis[-1])
        images.append(image)
        fresh, size = image, tree.norm(image)
        for _again in range(2):  # twice is enough against rounding
            for one in basis:
                fresh = tree.sub(fresh, tree.scale(tree.dot(one, fresh), one))
        basis.append(_normalised(fresh, tree.norm(fresh), size))
    # Least squares in the images of the basis: |A Σ yᵢ bᵢ − v|. A vector that broke down is zero, and gets no weight.
    columns = torch.stack([_flat(image) for image in images], dim=-1)
    weights = torch.linalg.pinv(columns) @ _flat(v)
    q = tree.zeros_like(v)
    for weight, one in zip(weights.unbind(), basis, strict=False):
        q = tree.add(q, tree.scale(weight, one))
    return q


def _normalised(vector: PyTree, length: Tensor, against: Tensor) -> PyTree:
    """A vector of length one; zero if it is but rounding beside `against`."""
    tiny = length <= 1e-12 * against
    return tree.scale(torch.where(tiny, 0.0, _ratio(torch.ones_like(length), length)), vector)


def normal_cg(*, iterations: int = 50, damping: float = 0.0) -> Solver:
    """Conjugate gradients for AᵀA q = Aᵀv, for any invertible A + damping; `apply` must be differentiable by torch.

    The condition number is squared. Cost: a product with A and one with its transpose an iteration.
    """

    def solve(apply: Linear, v: PyTree) -> PyTree:
        whole = damped(apply, damping)
        transpose = transposed(whole, v)
        return _conjugate_gradients(lambda q: transpose(whole(q)), transpose(v), iterations)

    return solve


def transposed(apply: Linear, like: PyTree) -> Linear:
    """q ↦ Aᵀ q for the linear map of trees shaped as `like`, by its vjp."""
    return autodiff.vjp(lambda q: (apply(q), ()), tree.zeros_like(like), keep=True)[2]


def dense(*, damping: float = 0.0) -> Solver:
    """A as a matrix, for up to some thousands of numbers: one product with A for each of them, and a factorisation."""

    def solve(apply: Linear, v: PyTree) -> PyTree:
        leaves, structure = tree.flatten(v)
        shapes = [leaf.shape for leaf in leaves]
        sizes = [leaf.numel() for leaf in leaves]

        def shaped(flat: Tensor) -> PyTree:
            parts = flat.split(sizes)
            return tree.unflatten([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)], structure)

        right = _flat(v)
        whole = damped(apply, damping)
        rows = torch.eye(len(right), dtype=right.dtype, device=right.device)
        matrix = torch.stack([_flat(whole(shaped(row))) for row in rows], dim=-1)
        return shaped(torch.linalg.solve(matrix, right))

    return solve


def _flat(value: PyTree) -> Tensor:
    return torch.cat([leaf.reshape(-1) for leaf in tree.leaves(value)])


SOLVERS: dict[str, Callable[..., Solver]] = {
    "cg": cg,
    "neumann": neumann,
    "gmres": gmres,
    "normal-cg": normal_cg,
    "dense": dense,
}
"""The constructors by name."""
