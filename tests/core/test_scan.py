"""`scan`: outputs and their derivatives against a plain loop in plain autograd, stacked inputs, lengths, errors."""

import functools

import pytest
import torch
from asserts import assert_close_tree, relative_error
from looped import SIZE, loss, numbers
from unrolled import EXACT

from metapl.core import inside, rng, tree
from metapl.core.unrolling import METHODS, scan, unroll

every_exact = pytest.mark.parametrize("how", EXACT.values(), ids=EXACT)
f64 = functools.partial(torch.tensor, dtype=torch.float64)
STEPS = 5  # segments of 3 and 2


def squared(w, x):
    return 0.5 * (x * w).sum() ** 2


@every_exact
@pytest.mark.parametrize("looped", ["scan", "scan of a list", "unroll"])
def test_two_steps_in_whole_numbers(looped, how):
    x, then, w = f64([[1.0, 2.0, 3.0]]), f64([4.0, 5.0, 6.0]), f64([2.0, 3.0, 5.0])

    def step(w, x):
        return w - 0.5 * inside.gradient(squared, w, x)[0]

    def outer(w, **how):
        if looped == "unroll":
            return squared(unroll(step, w, list(x), **how), then)
        return squared(scan(lambda w, x: (step(w, x), ()), w, x if looped == "scan" else list(x), **how)[0], then)

    assert torch.func.grad(functools.partial(outer, **how))(w).tolist() == [3780.0, 8505.0, 13230.0]
    first = {**how, "method": "stopped"} if how["method"] != "reverse" else {"method": "stopped"}
    assert torch.func.grad(functools.partial(outer, **first))(w).tolist() == [-1260.0, -1575.0, -1890.0]


def by_scan(at, **how):
    """An objective of the losses before the steps and of the iterates; the step also counts."""
    w, rate, weights = at

    def step(carry, given):
        value, _, gradient = inside.value_and_gradient(loss, carry["w"], given["weights"])
        after = carry["w"] - rate * gradient  # the rate is closed over
        return {"w": after, "count": carry["count"] + 1}, {"loss": value, "w": after, "count": carry["count"]}

    start = {"w": w, "count": torch.tensor(0)}
    carry, ys = scan(step, start, {"weights": weights}, **how)
    assert [leaf.shape[0] for leaf in tree.leaves(ys)] == [STEPS] * 3
    return (ys["loss"] * torch.arange(1.0, STEPS + 1)).sum() + (ys["w"] ** 3).sum() + carry["w"].sin().sum()


def by_loop(at):
    w, rate, weights = at
    total = 0.0
    for k in range(STEPS):
        if not w.requires_grad:
            w = w.requires_grad_()
        value = loss(w, weights[k])
        (gradient,) = torch.autograd.grad(value, w, create_graph=True)
        w = w - rate * gradient
        total = total + (k + 1.0) * value + (w**3).sum()
    return total + w.sin().sum()


def by_autograd(fn, at):
    leaves = [leaf.clone().requires_grad_() for leaf in at]
    return list(torch.autograd.grad(fn(leaves), leaves))


@functools.cache
def truth():
    return by_autograd(by_loop, numbers(STEPS))


WAYS = {
    "backward": by_autograd,
    "grad": lambda fn, at: torch.func.grad(fn)(at),
    "vmap of grad": lambda fn, at: [
        one[1] for one in torch.vmap(torch.func.grad(fn))([torch.stack([0.9 * leaf, leaf]) for leaf in at])
    ],
    "through vmap": lambda fn, at: [
        one[1]
        for one in by_autograd(lambda pairs: torch.vmap(fn)(pairs).sum(), [torch.stack([0.9 * a, a]) for a in at])
    ],
}


@every_exact
@pytest.mark.parametrize("way", WAYS)
def test_outputs_are_differentiable(way, how):
    found = WAYS[way](functools.partial(by_scan, **how), numbers(STEPS))
    assert relative_error(found, truth()) <= 1e-10
    assert_close_tree(by_scan(numbers(STEPS), **how), by_loop(numbers(STEPS)), rtol=1e-12)


@every_exact
def test_second_derivatives_go_through_outputs(how):
    def twice(fn):
        def length(leaves):
            return sum((g**2).sum() for g in torch.autograd.grad(fn(leaves), leaves, create_graph=True))

        return by_autograd(length, numbers(STEPS))

    assert relative_error(twice(functools.partial(by_scan, **how)), twice(by_loop)) <= 1e-10


@every_exact
def test_forward_mode_and_hessians(how):
    """Through any exact method, replaying or not: against reverse mode over reverse mode of a plain loop."""

    def of_start(fn):
        return lambda w: fn([w, *numbers(STEPS)[1:]])

    w, along = numbers(STEPS)[0], rng.normal(rng.key(9), (SIZE,), torch.float64)
    found = torch.func.jvp(of_start(functools.partial(by_scan, **how)), (w,), (along,))[1]
    assert relative_error(found, truth()[0] @ along) <= 1e-10
    matrix = torch.func.hessian(of_start(functools.partial(by_scan, **how)))(w)
    assert relative_error(matrix, torch.autograd.functional.hessian(of_start(by_loop), w)) <= 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_the_last_steps_only(method):
    """w ← r w, so that y_k = r^k w; of four steps the last two: dy_3/dr = y_2 and dy_4/dr = 2 r y_2."""
    rate = f64(0.5).requires_grad_()
    last, ys = scan(lambda w, _: (rate * w, rate * w), f64(16.0), None, length=4, last=2, method=method)
    assert ys.tolist() == [8.0, 4.0, 2.0, 1.0]
    assert torch.autograd.grad(ys.sum(), rate, retain_graph=True)[0].item() == 4.0 + 2 * 0.5 * 4.0
    assert torch.autograd.grad(last, rate)[0].item() == 2 * 0.5 * 4.0


@every_exact
def test_an_output_that_is_not_asked_for_and_one_that_is_passed_on(how):
    w = f64([1.0, 2.0]).requires_grad_()
    x = f64([[3.0, 4.0]] * 4).requires_grad_()
    last, (passed, given) = scan(lambda w, x: (w * x, (w, x)), w, x, **how)
    assert_close_tree(passed[-1] * x[-1], last, rtol=0.0)
    assert_close_tree(given, x, rtol=0.0)
    assert_close_tree(torch.autograd.grad(passed.sum(), w)[0], f64([1 + 3 + 9 + 27, 1 + 4 + 16 + 64]), rtol=1e-14)


def test_nothing_to_do():
    assert scan(lambda w, x: (w, x), f64(1.0), [])[1] == ()
    assert scan(lambda w, _: (2.0 * w, ()), f64(1.0), None, length=3) == (f64(8.0), ())


ERRORS = {
    "no length": (lambda w, x: (w, ()), None, {}, r"xs is None, so that length must say"),
    "another length": (
        lambda w, x: (w, ()),
        f64([1.0, 2.0]),
        {"length": 3},
        r"xs has 2 steps, and length=3 was",
    ),
    "two lengths": (lambda w, x: (w, ()), (f64([1.0]), f64([1.0, 2.0])), {}, r"first axes of \[1, 2\]"),
    "a scalar": (lambda w, x: (w, ()), f64(1.0), {}, r"a leaf without a first axis"),
    "no pair": (lambda w, x: w, [f64(1.0)], {}, r"must return \(carry, output\), it returned a Tensor"),
    "three": (lambda w, x: (w, w, w), [f64(1.0)], {}, r"it returned a tuple of 3"),
    "a number": (lambda w, x: (w, 1.0), [f64(1.0)], {}, r"an output of step is 1.0, a float"),
    "structures": (
        lambda w, x: (w, w if x > 1 else (w, w)),
        [f64(1.0), f64(2.0)],
        {},
        r"outputs differ in structure from step to step",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_wrong_is_said(case):
    step, xs, how, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        scan(step, f64(1.0), xs, **how)
