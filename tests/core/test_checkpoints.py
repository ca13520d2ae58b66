"""Plans of checkpoints: what they divide, how often they run a step, their derivatives, and files that go away."""

import functools

import pytest
import torch
from asserts import relative_error
from looped import SIZE, loss, numbers

from metapl.core import checkpoints, inside
from metapl.core.unrolling import scan
from metapl.registry.errors import InputError

STEPS = 11
f64 = functools.partial(torch.tensor, dtype=torch.float64)
IN_MEMORY = {
    "everything": checkpoints.everything,
    "sqrt": lambda: "sqrt",
    "log": lambda: "log",
    "bisection": lambda: checkpoints.log(base=2),
    "log, recorded": lambda: checkpoints.log(base=2, recorded=3),
    "every": lambda: checkpoints.every(4),
    "every, more than there are": lambda: checkpoints.every(100),
}
ON_DISK = {
    "disk": lambda folder: checkpoints.disk(folder, every=3),
    "disk, one by one": lambda folder: checkpoints.disk(folder, every=1),
    "disk, within": lambda folder: checkpoints.disk(str(folder / "new"), every=5, within=checkpoints.log(base=2)),
}


@pytest.fixture(params=[*IN_MEMORY, *ON_DISK])
def plan(request, tmp_path):
    name = request.param
    return ON_DISK[name](tmp_path) if name in ON_DISK else IN_MEMORY[name]()


def by_scan(at, **how):
    w, rate, weights = at
    w = w * (1.0 + rate)  # so that one argument of the loop depends on another

    def step(carry, given):
        value, _, grads = inside.value_and_gradient(loss, carry["w"], given)
        return {"w": carry["w"] - rate * grads, "count": carry["count"] + 1}, value

    carry, values = scan(step, {"w": w, "count": torch.tensor(0)}, weights, **how)
    return (values * torch.arange(1.0, STEPS + 1)).sum() + carry["w"].sin().sum() * carry["count"]


def by_loop(at):
    w, rate, weights = at
    w, total = w * (1.0 + rate), 0.0
    for k in range(STEPS):
        value = loss(w, weights[k])
        (grads,) = torch.autograd.grad(value, w, create_graph=True)
        w, total = w - rate * grads, total + (k + 1.0) * value
    return total + w.sin().sum() * STEPS


def once(fn):
    leaves = [leaf.clone().requires_grad_() for leaf in numbers(STEPS)]
    return list(torch.autograd.grad(fn(leaves), leaves))


def twice(fn):
    leaves = [leaf.clone().requires_grad_() for leaf in numbers(STEPS)]
    grads = torch.autograd.grad(fn(leaves), leaves, create_graph=True)
    return list(torch.autograd.grad(sum((grad**2).sum() for grad in grads), leaves))


def test_first_and_second_derivatives(plan):
    found = functools.partial(by_scan, checkpoints=plan)
    assert relative_error(once(found), once(by_loop)) <= 1e-10
    assert relative_error(twice(found), twice(by_loop)) <= 1e-10


def test_forward_mode(plan):
    along = [torch.ones_like(leaf) for leaf in numbers(STEPS)]
    found = torch.func.jvp(lambda *at: by_scan(at, checkpoints=plan), tuple(numbers(STEPS)), tuple(along))[1]
    expected = sum((grad * one).sum() for grad, one in zip(once(by_loop), along, strict=True))
    assert relative_error(found, expected) <= 1e-10


@pytest.mark.parametrize("name", IN_MEMORY)
def test_inside_of_transforms(name):
    found = torch.vmap(torch.func.grad(lambda at: by_scan(at, checkpoints=IN_MEMORY[name]())))(
        [torch.stack([0.9 * leaf, leaf]) for leaf in numbers(STEPS)]
    )
    assert relative_error([leaf[1] for leaf in found], once(by_loop)) <= 1e-10


@pytest.mark.parametrize("rule", ["mixed", "stopped"])
def test_the_rule_is_that_of_the_steps_whatever_the_plan(plan, rule):
    expected = once(functools.partial(by_scan, method=rule))
    assert relative_error(once(functools.partial(by_scan, method=rule, checkpoints=plan)), expected) <= 1e-12


SIZES = {
    "sqrt": (checkpoints.sqrt(), {1: (1, 1), 28: (6, 1), 300: (18, 1)}),
    "log": (checkpoints.log(), {1: (1,), 4: (1,), 5: (2, 1), 64: (16, 4, 1), 3000: (750, 188, 47, 12, 3, 1)}),
    "bisection": (checkpoints.log(base=2), {2: (1,), 3: (2, 1), 64: (32, 16, 8, 4, 2, 1)}),
    "recorded": (checkpoints.log(recorded=16), {3000: (750, 188, 47, 12)}),
    "every": (checkpoints.every(8), {300: (8,), 5: (5,)}),
    "disk": (checkpoints.disk("x", every=100, within=checkpoints.log()), {3000: (100, 25, 7, 2, 1), 4: (4, 1)}),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_steps_in_a_segment_level_by_level(name):
    given, expected = SIZES[name]
    assert {steps: tuple(given.sizes(steps)) for steps in expected} == expected


@pytest.mark.parametrize(
    ("given", "levels"), [("everything", 1), (checkpoints.every(8), 1), ("sqrt", 2), ("log", 3), (False, 1), (True, 2)]
)
def test_a_step_is_run_once_more_for_each_level(given, levels):
    calls = []

    def step(w, x):
        calls.append(1)
        return w - 0.1 * inside.gradient(loss, w, x)[0], ()

    w = torch.ones(SIZE, dtype=torch.float64).requires_grad_()
    last, _ = scan(step, w, torch.ones(64, SIZE, dtype=torch.float64), checkpoints=given)
    assert len(calls) == 64
    last.sum().backward()
    assert len(calls) == 64 * (1 + levels)


def test_files_are_there_until_the_graph_goes(tmp_path):
    """⌈11 / 3⌉ segments have three carries between them; a graph that is kept keeps its files."""
    w = torch.ones(SIZE, dtype=torch.complex128).requires_grad_()

    def step(carry, x):
        return (carry[0] * (1 - 0.1j) * x, carry[1] + 1, carry[0].real), ()

    start = (w, torch.tensor(0), w.real)
    (last, count, _), _ = scan(
        step, start, torch.full((11,), 2.0), checkpoints=checkpoints.disk(tmp_path / "deep" / "er", every=3)
    )
    assert int(count) == 11

    def files():
        return sorted(path.name for path in tmp_path.rglob("*.safetensors"))

    assert files() == ["1.safetensors", "2.safetensors", "3.safetensors"]
    total = last.real.sum()
    (grad,) = torch.autograd.grad(total, w, retain_graph=True)
    assert len(files()) == 3
    expected = torch.full_like(w, (2.0 * (1 - 0.1j)) ** 11).conj().resolve_conj()
    assert relative_error(torch.view_as_real(grad), torch.view_as_real(expected)) <= 1e-12
    del last, total, _
    assert files() == []
    assert list((tmp_path / "deep" / "er").iterdir()) == []


def test_no_file_holds_a_tensor_of_a_transform(tmp_path):
    def objective(w):
        return scan(lambda w, _: (2.0 * w, ()), w, None, length=4, checkpoints=checkpoints.disk(tmp_path, every=2))[0]

    with pytest.raises(InputError, match=r"checkpoints.disk\(\) is for .backward\(\).*take checkpoints='log'"):
        torch.func.grad(objective)(f64(1.0))


ERRORS = {
    "a name": (lambda: scan(None, f64(1.0), [], checkpoints="cbrt"), "plan of checkpoints"),
    "a number": (lambda: scan(None, f64(1.0), [], checkpoints=8), r"checkpoints=8 is a int: give .*every\(8\)"),
    "no steps": (lambda: checkpoints.every(0), r"checkpoints.every\(steps=0\) must be at least 1"),
    "a base": (lambda: checkpoints.log(base=1), r"log\(base=1\) must be at least 2"),
    "nothing recorded": (lambda: checkpoints.log(recorded=0), r"log\(recorded=0\) must be at least 1"),
    "no files": (lambda: checkpoints.disk("x", every=0), r"disk\(every=0\) must be at least 1"),
    "disk in disk": (
        lambda: checkpoints.disk("x", every=9, within=checkpoints.disk("y", every=3)),
        r"disk\(within=…\) is a plan in memory",
    ),
    "recorded anyway": (
        lambda: scan(None, f64(1.0), [], method="reverse", checkpoints=checkpoints.every(8)),
        "checkpoints need a method that replays",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_wrong_is_said(case):
    wrong, message = ERRORS[case]
    with pytest.raises((ValueError, InputError), match=message):
        wrong()
