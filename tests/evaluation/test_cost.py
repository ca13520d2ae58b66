"""Operations, memory and time of a call."""

import pytest
import torch

from metapl.core import autodiff
from metapl.evaluation import cost

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


CPU = torch.device("cpu")


def test_flops_of_a_matrix_product_and_its_derivatives():
    a, b, v = torch.ones(8, 20), torch.ones(20, 30), torch.ones(20, 30)

    def fn(b):
        return (a @ b).tanh().sum()

    one = 2 * 8 * 20 * 30
    assert cost.flops(lambda: fn(b)) == one
    assert cost.flops(lambda: torch.func.jvp(fn, (b,), (v,))) >= 2 * one
    assert cost.flops(lambda: torch.func.vjp(fn, b)[1](torch.ones(()))) == 2 * one
    assert cost.flops(lambda: torch.vmap(fn)(torch.ones(5, 20, 30))) == 5 * one
    assert cost.flops(lambda: autodiff.value_and_grad(lambda b: (fn(b), ()), b)) == 2 * one


def test_peak_memory():
    a, kilobyte = torch.zeros(256), 1024

    def temporary():
        (a + 1).sum()  # freed before the next line
        return a.reshape(16, 16).t() + 2

    assert cost.peak_memory(lambda: a + 1, CPU) == kilobyte
    assert cost.peak_memory(lambda: [a + 1, a + 2, a + 3], CPU) == 3 * kilobyte
    assert cost.peak_memory(lambda: (a + 1) * 2 * 3 * 4, CPU) == 2 * kilobyte
    assert cost.peak_memory(lambda: a.view(16, 16).t()[:3], CPU) == 0  # a view is no new memory
    assert cost.peak_memory(temporary, CPU) == kilobyte + 4
    assert cost.peak_memory(lambda: torch.func.grad(lambda x: x.exp().sum())(a), CPU) >= 2 * kilobyte


def test_peak_memory_sees_what_a_graph_keeps():
    w = torch.ones(256, requires_grad=True)

    def kept(depth):
        y = w
        for _ in range(depth):
            y = y.exp()
        return y.sum()

    found = [cost.peak_memory(lambda depth=depth: kept(depth), CPU) for depth in (4, 8)]
    assert found[1] - found[0] == 4 * 1024


def test_calls_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    times = cost.interleave(calls, 2, CPU)
    assert order == [*"abc"] * 3
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abc", 2)


def test_quartiles():
    assert cost.quartiles([5.0, 1.0, 2.0, 4.0, 3.0]) == (2.0, 3.0, 4.0)
    assert cost.quartiles([5.0]) == (5.0, 5.0, 5.0)
