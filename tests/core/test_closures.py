"""What a step holds beside its arguments: found, exchanged, differentiated; against the same step with arguments."""

import functools
import types

import pytest
import torch
from asserts import assert_close_tree
from torch import nn

from metapl import optim
from metapl.core import closures, inside, tree
from metapl.core.unrolling import METHODS, unroll
from metapl.registry.errors import InputError

RATE = torch.tensor(0.1, dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
GLOBAL = torch.tensor(0.1, dtype=torch.float64)


def quartic(w):
    return (w**4).sum() / 4.0


def descend(rate, w, _):
    return w - rate * inside.gradient(quartic, w)[0]


def by_global(w, given):
    return descend(GLOBAL, w, given)


class Rule:
    def __init__(self, rate):
        self.options = {"rates": [rate]}

    def step(self, w, given):
        return descend(self.options["rates"][0], w, given)

    def __call__(self, w, given):
        return self.step(w, given)


def by_default(rate):
    def step(w, given, rate=rate):
        return descend(rate, w, given)

    return step


def by_keyword(rate):
    def step(w, given, *, rate=rate):
        return descend(rate, w, given)

    return step


def by_optimizer(rate):
    optimizer = optim.sgd(rate)
    state = optimizer.init({"w": START})

    def step(w, _):
        grads = {"w": inside.gradient(quartic, w)[0]}
        return w + optimizer.update(grads, state, {"w": w})[0]["w"]

    return step


def by_recursion(rate):
    def step(w, given, again=True):
        return step(w, given, False) if again else descend(rate, w, given)

    return step


def by_namespace(rate):
    space = types.SimpleNamespace(rate=rate)
    return lambda w, given: descend(space.rate, w, given)


def by_inner_closure(rate):
    def step(w, given):
        def descended():
            return descend(rate, w, given)

        return descended()

    return step


HELD = {
    "a closure": lambda rate: lambda w, given: descend(rate, w, given),
    "a closure in a closure": by_inner_closure,
    "a partial": lambda rate: functools.partial(descend, rate),
    "a keyword of a partial": lambda rate: functools.partial(lambda w, given, rate: descend(rate, w, given), rate=rate),
    "a default": by_default,
    "a keyword default": by_keyword,
    "an object that is called": Rule,
    "a bound method": lambda rate: Rule(rate).step,
    "a namespace": by_namespace,
    "an optimiser": by_optimizer,
    "a function that calls itself": by_recursion,
}


def expected(rate, steps=3):
    """d quartic(w_K) / d rate by central differences of plain arithmetic."""

    def value(rate):
        w = START
        for _ in range(steps):
            w = w - rate * w**3
        return float(quartic(w))

    return (value(float(rate) + 1e-6) - value(float(rate) - 1e-6)) / 2e-6


@pytest.mark.parametrize("method", [method for method in METHODS if method != "stopped"])
@pytest.mark.parametrize("held", HELD)
def test_a_step_is_differentiable_in_what_it_holds(held, method):
    def value(rate):
        return quartic(unroll(HELD[held](rate), START, [torch.zeros(())] * 3, method=method))

    near = 1e-3 if method == "difference" else 1e-6
    leaf = RATE.clone().requires_grad_()
    found = torch.autograd.grad(value(leaf), leaf)[0]
    assert float(found) == pytest.approx(expected(RATE), rel=near)
    assert_close_tree(torch.func.grad(value)(RATE), found, rtol=1e-12)
    rates = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)
    several = torch.func.grad(lambda scale: torch.vmap(value)(scale * rates).sum())(torch.ones((), dtype=torch.float64))
    assert float(several) == pytest.approx(sum(float(rate) * expected(rate) for rate in rates), rel=near)


@pytest.mark.parametrize("method", ["replay", "mixed"])
def test_a_global_is_found_and_left_as_it_is(method, monkeypatch):
    leaf = RATE.clone().requires_grad_()
    monkeypatch.setitem(globals(), "GLOBAL", leaf)
    value = quartic(unroll(by_global, START, [torch.zeros(())] * 3, method=method))
    assert float(torch.autograd.grad(value, leaf)[0]) == pytest.approx(expected(RATE), rel=1e-5)
    assert GLOBAL is leaf


@pytest.mark.parametrize("checkpoints", [False, True])
def test_what_the_loss_of_a_step_holds(checkpoints):
    """A penalty that the inner loss closes over; the reference has it among the inputs."""

    def steps(penalty, closed):
        def step(w, given):
            weight = penalty if closed else given
            return w - 0.1 * inside.gradient(lambda w: (quartic(w) + weight * (w**2).sum(), ()), w)[0]

        return lambda method: unroll(step, START, [penalty] * 4, method=method, checkpoints=checkpoints)

    for method in ("replay", "mixed", "difference"):
        leaf = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        one, other = (torch.autograd.grad(quartic(steps(leaf, closed)(method)), leaf)[0] for closed in (True, False))
        assert one != 0.0
        assert_close_tree(one, other, rtol=1e-12)


def test_a_loss_alone_is_differentiable_in_what_it_holds():
    """∂/∂a of 2 a w is 2 w, though neither argument requires a gradient."""
    a = torch.tensor(3.0, requires_grad=True)
    grads, _ = inside.gradient(lambda w: a * (w**2).sum(), torch.tensor([1.0, 2.0]))
    assert torch.autograd.grad(grads.sum(), a)[0] == 6.0


def test_a_parameter_of_a_module_is_refused_on_the_way_back():
    net = nn.Linear(3, 1).double()

    def step(w, x):
        return w - 0.1 * inside.gradient(lambda w: ((x @ w - net(x)[:, 0]) ** 2).mean(), w)[0]

    last = unroll(step, START.clone().requires_grad_(), [torch.ones(4, 3, dtype=torch.float64)] * 2)
    with pytest.raises(InputError, match=r"shape .*requires a gradient.*into the carry"):
        last.sum().backward()


def test_leaves_that_a_step_makes_itself_are_not_refused():
    def step(w, _):
        fresh = (2.0 * w).detach().requires_grad_()
        with torch.enable_grad():
            constant = torch.autograd.grad(quartic(fresh), fresh)[0]
        return w - 0.01 * constant

    start = START.clone().requires_grad_()
    unroll(step, start, [torch.zeros(())] * 3).sum().backward()
    assert_close_tree(start.grad, torch.ones_like(START), rtol=0.0)


def test_captured_names_live_tensors_and_no_others():
    live, dead, net = torch.ones(2, requires_grad=True), torch.ones(2), nn.Linear(2, 2)
    rule = optim.sgd(live)

    def fn(w):
        return net(w) + dead + rule.update({"w": w}, rule.init({"w": w}), {"w": w})[0]["w"]

    ((name, tensor),) = closures.captured(fn)
    assert tensor is live
    assert name.startswith("rule")


def test_swapped_makes_a_new_function_and_passes_on_what_holds_nothing():
    a, b = torch.tensor(2.0), torch.tensor(5.0)
    pair, other = [a, a], [b]

    def fn(x):
        return pair[0] * x + pair[1] + other[0]

    fresh = closures.swapped(fn, {id(a): torch.tensor(3.0)})
    assert (float(fresh(1.0)), float(fn(1.0))) == (11.0, 9.0)
    assert fresh.__closure__[0].cell_contents is other
    assert closures.swapped(fn, {id(object()): 1}) is fn
    assert pair[0] is a


def test_a_cycle_ends():
    a = torch.tensor(2.0, requires_grad=True)
    ring = {"a": a}
    ring["self"] = ring

    def fn():
        return ring["self"]["self"]["a"]

    assert [tensor is a for _, tensor in closures.captured(fn)] == [True]
    assert closures.swapped(fn, {id(a): 7})() == 7
    assert fn() is a


def test_the_walk_is_bounded():
    big = list(range(3)) + [tree] * 3
    big[0] = [[[i] for i in range(1000)] for _ in range(100)]
    assert closures.captured(lambda: big) == []
