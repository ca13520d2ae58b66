"""One assertion per mathematical property."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree

from metapl.registry.errors import InputError


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _flat(value: Any) -> Tensor:
    return torch.cat([leaf.detach().double().reshape(-1) for leaf in _tensors(value)])


def relative_error(actual: Any, expected: Any) -> float:
    """|actual − expected| / |expected| over all leaves."""
    a, b = _flat(actual), _flat(expected)
    return float((a - b).norm() / b.norm().clamp_min(torch.finfo(torch.float64).tiny))


def assert_close_tree(actual: Any, expected: Any, rtol: float, atol: float = 0.0) -> None:
    """Same structure and shapes, and every leaf within rtol · |leaf| + atol in norm."""
    paths, structure = _pytree.tree_flatten_with_path(expected)
    leaves, found = _pytree.tree_flatten(actual)
    assert found == structure, f"structure {found}, expected {structure}"
    for (path, b), a in zip(paths, leaves, strict=True):
        a, b = torch.as_tensor(a).detach(), torch.as_tensor(b).detach()  # noqa: PLW2901
        assert a.shape == b.shape, f"{_pytree.keystr(path)}: shape {a.shape}, expected {b.shape}"
        error, bound = (a.double() - b.double()).norm(), rtol * b.double().norm() + atol
        assert error <= bound, f"{_pytree.keystr(path)}: error {error:.3e} exceeds {bound:.3e}"


def assert_same_gradient(actual: Any, expected: Any, norm_tol: float, cosine_tol: float) -> None:
    """Equal in norm and in direction: ||a|/|b| − 1| <= norm_tol and 1 − cos(a, b) <= cosine_tol."""
    a, b = _flat(actual), _flat(expected)
    assert a.shape == b.shape, f"{a.shape} numbers, expected {b.shape}"
    assert b.norm() > 0, "the expected gradient is zero, which has no direction"
    ratio = float(a.norm() / b.norm())
    assert abs(ratio - 1.0) <= norm_tol, f"|actual| / |expected| = 1 + {ratio - 1:.3e}, tolerance {norm_tol:.1e}"
    # 1 − cos = |a/|a| − b/|b||² / 2, which does not cancel.
    angle = float((a / a.norm() - b / b.norm()).square().sum() / 2.0)
    assert angle <= cosine_tol, f"1 - cosine = {angle:.3e}, tolerance {cosine_tol:.1e}"


def finite_differences(fn: Callable[[Any], Any], at: Any, width: float = 1e-3) -> Any:
    """The gradient of the scalar `fn` at a tree of float64 tensors, by Richardson-extrapolated central differences.

    (4 D(h) − D(2h)) / 3, of error O(h⁴): about 10⁻⁹ relative for a smooth function of order one.
    """
    return richardson(fn, at, 2.0 * width, levels=2)[0]


def richardson(fn: Callable[[Any], Any], at: Any, width: float, levels: int = 4) -> tuple[Any, float]:
    """The gradient of the scalar `fn` by Romberg's table of central differences, and an estimate of its relative error.

    Of the widths h, h / 2, h / 4, …; each column takes another even power of h away, so that the last number has the
    error O(h^(2 levels)), and h can be wide, where rounding (about 10⁻¹⁶ / h) does not count. The estimate is the
    distance to the best number without the widest difference.
    """
    leaves, structure = _pytree.tree_flatten(at)
    leaves = [torch.as_tensor(leaf).detach().clone(memory_format=torch.contiguous_format) for leaf in leaves]
    assert all(leaf.dtype == torch.float64 for leaf in leaves), "finite differences need float64"
    grads, rough = ([torch.zeros_like(leaf) for leaf in leaves] for _ in range(2))

    def value(number: Tensor, offset: float) -> float:
        before = number.clone()
        number += offset
        result = float(fn(_pytree.tree_unflatten([leaf.clone() for leaf in leaves], structure)))
        number.copy_(before)
        return result

    def slope(number: Tensor, h: float) -> float:
        return (value(number, h) - value(number, -h)) / (2.0 * h)

    for leaf, grad, other in zip(leaves, grads, rough, strict=True):
        for index, number in enumerate(leaf.view(-1)):
            column = [slope(number, width / 2**level) for level in range(levels)]
            for order in range(1, levels):
                near = column[-1]
                column = [(4**order * b - a) / (4**order - 1) for a, b in itertools.pairwise(column)]
            grad.view(-1)[index], other.view(-1)[index] = column[0], near
    return _pytree.tree_unflatten(grads, structure), relative_error(rough, grads)


def _bytes(value: Any) -> list[tuple[torch.dtype, torch.Size, bytes]]:
    return [(leaf.dtype, leaf.shape, leaf.detach().contiguous().numpy().tobytes()) for leaf in _tensors(value)]


def _flags(value: Any) -> list[tuple[int, bool, bool]]:
    return [(leaf._version, leaf.requires_grad, leaf.grad is None) for leaf in _tensors(value)]


def assert_pure(fn: Callable[..., Any], *args: Any) -> Any:
    """Same inputs twice give bit-identical outputs; inputs and the global generator stay as they were.

    The outputs are data: none requires a gradient. Every tensor among the arguments is checked, BatchNorm's buffers
    and the optimiser's state included. Returns the output.
    """
    before, flags, generator = _bytes(args), _flags(args), torch.get_rng_state()
    first = fn(*args)
    kept = _bytes(first)
    second = fn(*args)
    assert _bytes(second) == kept, "the same inputs gave different outputs"
    assert _bytes(first) == kept, "the second call changed what the first returned"
    assert _bytes(args) == before, "an input was modified"
    assert _flags(args) == flags, "an input was written to, or got a gradient"
    assert torch.equal(torch.get_rng_state(), generator), "the global generator was used"
    assert not any(leaf.requires_grad for leaf in _tensors(first)), "an output requires a gradient"
    return first


def assert_refused(message: str, call: Callable[..., Any], *args: Any, **options: Any) -> None:
    """The call raises an `InputError` of one line that fits the pattern."""
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert len(str(caught.value).splitlines()) == 1
    assert re.search(message, str(caught.value)), str(caught.value)


def assert_says(call: Callable[[], Any], *words: object) -> None:
    """The call raises an `InputError` of one line that holds the words."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert str(word) in str(caught.value)
