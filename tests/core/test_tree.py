"""Arithmetic on pytrees."""

from typing import NamedTuple

import pytest
import torch
from asserts import assert_close_tree, assert_pure, finite_differences

from metapl.core import tree


class Pair(NamedTuple):
    a: object
    b: object


def example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    bias = torch.randn(3, generator=generator, dtype=torch.float64)
    return {"net": Pair(weight, [bias]), "rest": (torch.randn((), generator=generator, dtype=torch.float64), ())}


def flat(value):
    weight, (bias,) = value["net"]
    return torch.cat([weight.reshape(-1), bias, value["rest"][0].reshape(1)])


@pytest.mark.parametrize(
    ("ours", "vectors"),
    [
        (tree.add, lambda a, b: a + b),
        (tree.sub, lambda a, b: a - b),
        (lambda a, b: tree.scale(2.5, a), lambda a, b: 2.5 * a),
        (lambda a, b: tree.lerp(a, b, 0.25), lambda a, b: 0.75 * a + 0.25 * b),
        (lambda a, b: tree.zeros_like(a), lambda a, b: 0.0 * a),
        (lambda a, b: tree.map(lambda x, y: x * y.sin(), a, b), lambda a, b: a * b.sin()),
    ],
    ids=["add", "sub", "scale", "lerp", "zeros_like", "map"],
)
def test_arithmetic_is_that_of_the_flat_vectors(ours, vectors):
    a, b = example(0), example(1)
    result = assert_pure(ours, a, b)
    assert tree.flatten(result)[1] == tree.flatten(a)[1]
    assert_close_tree(flat(result), vectors(flat(a), flat(b)), rtol=1e-15)


def test_dot_and_norm_are_those_of_the_flat_vectors():
    a, b = example(0), example(1)
    assert_close_tree(assert_pure(tree.dot, a, b), flat(a) @ flat(b), rtol=1e-14)
    assert_close_tree(assert_pure(tree.norm, a), torch.linalg.vector_norm(flat(a)), rtol=1e-15)


def test_gradient_of_norm_equals_finite_differences():
    a = example()
    found = torch.func.grad(tree.norm)(a)
    assert_close_tree(found, finite_differences(tree.norm, a), rtol=1e-9)


def test_gradient_of_norm_is_zero_at_zero():
    zeros = tree.zeros_like(example())
    assert_close_tree(torch.func.grad(tree.norm)(zeros), zeros, rtol=0.0)


def test_safe_divide_and_its_derivatives_where_there_is_nothing_to_divide_by():
    a, b = torch.tensor([3.0, 0.0, 3.0, 0.0]), torch.tensor([2.0, 2.0, 0.0, 0.0])
    assert tree.safe_divide(torch.tensor(3e-20), torch.tensor(2e-20)) == 1.5
    assert torch.equal(tree.safe_divide(a, b), torch.tensor([1.5, 0.0, 0.0, 0.0]))
    assert torch.equal(tree.safe_divide(6.0, b), torch.tensor([3.0, 3.0, 0.0, 0.0]))
    by_a, by_b = torch.func.grad(lambda a, b: tree.safe_divide(a, b).sum(), argnums=(0, 1))(a, b)
    assert torch.equal(by_a, torch.tensor([0.5, 0.5, 0.0, 0.0]))
    assert torch.equal(by_b, torch.tensor([-0.75, 0.0, 0.0, 0.0]))


def test_safe_sqrt_and_its_first_two_derivatives():
    """√x, x^(−1/2) / 2 and −x^(−3/2) / 4 where x > 0; all zero, not NaN, at x = 0."""
    x = torch.tensor([0.0, 1e-12, 0.25, 9.0], dtype=torch.float64)
    first = torch.func.grad(lambda x: tree.safe_sqrt(x).sum())
    second = torch.func.grad(lambda x: first(x).sum())
    assert_close_tree(tree.safe_sqrt(x), torch.tensor([0.0, 1e-6, 0.5, 3.0], dtype=torch.float64), rtol=1e-15)
    assert first(x)[0] == second(x)[0] == 0.0
    assert_close_tree(first(x)[1:], 0.5 * x[1:] ** -0.5, rtol=1e-15)
    assert_close_tree(second(x)[1:], -0.25 * x[1:] ** -1.5, rtol=1e-15)


def test_unflatten_inverts_flatten():
    a = example()
    leaves, structure = tree.flatten(a)
    assert len(leaves) == len(tree.leaves(a)) == 3
    assert_close_tree(tree.unflatten(leaves, structure), a, rtol=0.0)


def test_map_unzip_gives_one_tree_for_each_value():
    a, b = example(0), example(1)
    total, product = tree.map_unzip(lambda x, y: (x + y, x * y), 2, a, b)
    assert_close_tree(total, tree.add(a, b), rtol=0.0)
    assert_close_tree(flat(product), flat(a) * flat(b), rtol=0.0)


def test_map_unzip_of_an_empty_tree_gives_empty_trees():
    assert tree.map_unzip(lambda x: (x, x, x), 3, {}) == ({}, {}, {})


def test_leaves_are_paired_by_name_not_by_order():
    """A checkpoint, for one, returns a dictionary in another order."""
    a = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}
    b = {"b": torch.tensor([7.0, 8.0]), "w": torch.tensor([5.0, 6.0])}
    expected = {"w": torch.tensor([6.0, 8.0]), "b": torch.tensor([10.0, 12.0])}
    assert tree.dot(a, b) == 1 * 5 + 2 * 6 + 3 * 7 + 4 * 8
    for total in (tree.add(a, b), *tree.map_unzip(lambda x, y: (x + y,), 1, a, b)):
        assert all(torch.equal(total[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    "other", [{"w": torch.ones(2)}, {"w": torch.ones(2), "c": torch.ones(2)}, [torch.ones(2), torch.ones(2)]]
)
@pytest.mark.parametrize(
    "call",
    [tree.add, tree.dot, lambda a, b: tree.map_unzip(lambda x, y: (x + y,), 1, a, b)],
    ids=["add", "dot", "unzip"],
)
def test_another_structure_is_refused(call, other):
    with pytest.raises((ValueError, KeyError)):
        call({"w": torch.ones(2), "b": torch.ones(2)}, other)


def test_lerp_takes_counters_from_the_end():
    start, end = {"n": torch.tensor(3), "x": torch.tensor(1.0)}, {"n": torch.tensor(8), "x": torch.tensor(2.0)}
    assert tree.lerp(start, end, 0.5) == {"n": torch.tensor(8), "x": torch.tensor(1.5)}


def test_to_casts_only_floating_point_leaves():
    cast = tree.to({"n": torch.tensor(3), "x": torch.tensor(0.1)}, torch.float64)
    assert (cast["n"].dtype, cast["x"].dtype) == (torch.int64, torch.float64)
    moved = tree.to({"n": torch.tensor(3), "x": torch.tensor(0.1)}, "meta")
    assert all(leaf.device.type == "meta" for leaf in moved.values())


def test_detach_cuts_the_graph_and_keeps_the_values():
    leaf = torch.tensor(2.0, requires_grad=True)
    (cut,) = tree.detach([leaf * leaf])
    assert not cut.requires_grad
    assert float(cut) == 4.0


def test_size_counts_numbers():
    assert tree.size(example()) == 2 * 3 + 3 + 1
    assert tree.size({}) == 0
