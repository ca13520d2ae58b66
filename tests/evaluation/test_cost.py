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


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("through", [False, True])
def test_flops_of_a_convolution_in_groups(groups, through):
    """In closed form: each output is a sum over the inputs of its own group."""
    layer = torch.nn.Conv2d(8, 16, 3, padding=1, groups=groups)
    x = torch.ones(2, 8, 5, 5, requires_grad=through)
    one = 2 * (2 * 16 * 5 * 5) * (8 // groups) * 9
    assert cost.flops(lambda: layer(x)) == one
    assert cost.flops(lambda: layer(x).sum().backward()) == (3 if through else 2) * one
    with cost.Meter() as meter:
        layer(x).sum().backward()
    assert meter.flops == (3 if through else 2) * one


def test_a_meter_counts_bytes_and_calls():
    a, kilobyte = torch.zeros(256), 1024
    with cost.Meter() as meter:
        b = a + 1
        assert (meter.moved, meter.calls, meter.live, meter.peak) == (2 * kilobyte, 1, kilobyte, kilobyte)
        meter.restart()
        assert meter.peak == kilobyte  # b is still there
        c = b.view(16, 16).t()[:3]
        assert (meter.moved, meter.calls) == (0, 3)
        c.add_(1)  # in place: read and written
        assert (meter.moved, meter.peak) == (2 * 3 * 64, kilobyte)
        del b, c
    assert (meter.live, meter.peak) == (0, kilobyte)


def test_a_counter_goes_on_from_what_is_held():
    counter, a, kilobyte = cost.Counter(), torch.zeros(256, device="meta"), 1024
    first, b = counter(lambda: (a + 1) * 2)
    assert first == cost.Pass(0, 4 * kilobyte, 2, 2 * kilobyte, kilobyte)
    second, _ = counter(b.sum)
    assert second == cost.Pass(0, kilobyte + 4, 1, 4, 4)
    third, _ = counter(lambda: b.view(16, 16) @ b.view(16, 16))
    assert third.flops == 2 * 16**3
