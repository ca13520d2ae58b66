"""The two maps against the same function computed by one process, and every derivative of it."""

import dataclasses

import pytest
import torch
from asserts import assert_close_tree, assert_says
from together import together

from metapl.core import forward_mode
from metapl.core.collectives import ALONE, enter, leave, require_same

COUNT = 2
W = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
U = torch.tensor([0.5, 0.2, -0.4], dtype=torch.float64)


def own(rank, w):
    """What a process computes: not linear, and another function in each."""
    return torch.sin((rank + 1.0) * w).prod() + (w**3).sum() * rank


def alone(w):
    return torch.exp(sum(own(rank, w) for rank in range(COUNT)))


def shared(processes, w):
    (inside,) = enter(processes, [w])
    return torch.exp(leave(processes, [own(processes.rank, inside)])[0])


def derivatives(fn):
    """By torch.autograd and by torch.func, up to the third order."""
    w = W.clone().requires_grad_()
    (first,) = torch.autograd.grad(fn(w), w, create_graph=True)
    (second,) = torch.autograd.grad(first @ U, w, create_graph=True)
    (third,) = torch.autograd.grad(second @ U, w)
    value, back = torch.func.vjp(fn, W)
    grad = torch.func.grad(fn)
    return {
        "first": first.detach(),
        "second": second.detach(),
        "third": third,
        "vjp": (value, back(torch.ones_like(value))[0]),
        "jvp": torch.func.jvp(fn, (W,), (U,)),
        "stopped jvp": forward_mode.jvp(fn, (W,), (U,)),
        "transposed jvp": torch.func.vjp(lambda u: torch.func.jvp(fn, (W,), (u,))[1], U)[1](torch.ones_like(value))[0],
        "forward over reverse": torch.func.jvp(grad, (W,), (U,))[1],
        "reverse over forward": torch.func.grad(lambda w: torch.func.jvp(fn, (w,), (U,))[1])(W),
        "reverse over reverse": torch.func.grad(lambda w: grad(w) @ U)(W),
    }


@pytest.fixture(scope="module")
def found():
    def compute(processes):
        return derivatives(lambda w: shared(processes, w))

    return together(COUNT, compute)


@pytest.mark.parametrize("name", list(derivatives(alone)))
def test_derivatives_are_those_of_one_process(found, name):
    for one in found:
        assert_close_tree(one[name], derivatives(alone)[name], rtol=1e-14)


def test_each_is_the_transpose_of_the_other():
    """⟨enter(x), y⟩ = ⟨x, leave(y)⟩, with the inner product of own values summed over the processes."""

    def sides(processes):
        y = torch.arange(3.0, dtype=torch.float64) + processes.rank
        (here,) = enter(processes, [W])
        (left,) = leave(processes, [(here * y).sum()])
        return left, (W * leave(processes, [y])[0]).sum()

    for left, right in together(COUNT, sides):
        assert_close_tree(left, right, rtol=1e-15)


def test_tensors_of_all_dtypes_and_sizes_are_summed_in_buckets(monkeypatch):
    monkeypatch.setattr("metapl.core.collectives.BUCKET", 5)
    calls = []

    def doubled(flat):
        calls.append(flat.dtype)
        return flat.mul_(2)

    given = [torch.ones(2, 2), torch.full((), 3.0), torch.ones(7), torch.ones(2, dtype=torch.float64), torch.ones(0)]
    kept = [one.clone() for one in given]
    found = leave(dataclasses.replace(ALONE, count=2, reduce=doubled), given)
    assert_close_tree(list(found), [2 * one for one in given], rtol=0.0)
    assert_close_tree(given, kept, rtol=0.0)
    assert calls == [torch.float32] * 3 + [torch.float64]  # four and one, seven, none, two


def test_what_nobody_asks_for_is_not_summed():
    """A gradient that is not wanted costs no communication."""
    sizes = []

    def reduce(flat):
        sizes.append(len(flat))
        return flat

    a, b = torch.ones(3, requires_grad=True), torch.ones(5)
    one, other = enter(dataclasses.replace(ALONE, count=2, reduce=reduce), [a, b])
    (one.sum() * other.sum()).backward()
    assert sizes == [3]


def test_values_that_differ_are_refused_by_all():
    def differ(processes):
        tree = {"a": torch.ones(3), "b": torch.tensor([1, 2]), "c": torch.zeros(4, dtype=torch.bool)}
        require_same(processes, "state", tree)
        tree["a"][1] += torch.finfo(torch.float32).eps * processes.rank
        assert_says(lambda: require_same(processes, "state", tree), "process 1 of 2", "another state")

    together(COUNT, differ)


def test_alone_nothing_is_done():
    assert enter(ALONE, [W])[0] is W
    assert leave(ALONE, [W])[0] is W
    require_same(ALONE, "state", {"a": W})
