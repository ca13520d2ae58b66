"""Where `torch` cannot take a derivative: one line that says what to do. And where `vmap` would make it wrong."""

import importlib
import warnings

import pytest
import torch
from asserts import assert_close_tree
from torch.utils.checkpoint import checkpoint

from metapl import optim
from metapl.core import autodiff, bilevel, forward_mode, inside, torch_private
from metapl.core.unrolling import unroll
from metapl.registry.errors import InputError

X = torch.tensor([1.0, 2.0])


class WithoutContext(torch.autograd.Function):
    """In the style of before `setup_context`."""

    @staticmethod
    def forward(_ctx, x):
        return 2.0 * x

    @staticmethod
    def backward(_ctx, grad):
        return 2.0 * grad


def attended(x):
    """The fused kernel of torch, which has one derivative."""
    q = x.expand(1, 1, 4, 2)
    return torch.nn.functional.scaled_dot_product_attention(q, q, q).square().sum()


def twice(fn):
    leaf = X.clone().requires_grad_()
    (once,) = torch.autograd.grad(fn(leaf), leaf, create_graph=True)
    torch.autograd.grad(once.square().sum(), leaf)


def reentrant():
    leaf = X.clone().requires_grad_()
    torch.autograd.grad(checkpoint(torch.sin, leaf, use_reentrant=True).sum(), leaf)


def sunk():
    """What torch says of an operation that has no derivative."""
    raise NotImplementedError("derivative for aten::sunk_backward is not implemented")


TORCH = {
    "attention": (
        lambda: twice(attended),
        r"second derivative of aten::_scaled.*first_order\(\), or method='difference' .*; or attention .*MATH",
    ),
    "another": (
        sunk,
        r"second derivative of aten::sunk_backward: .*difference\(\) or first_order\(\), or method='difference' ",
    ),
    "checkpoint": (
        lambda: torch.func.grad(lambda x: checkpoint(torch.sin, x, use_reentrant=False).sum())(X),
        r"^torch.utils.checkpoint does not work inside of torch.func: take exact\(\) or unroll\(\)$",
    ),
    "no context": (
        lambda: torch.func.grad(lambda x: WithoutContext.apply(x).sum())(X),
        r"without setup_context does not work inside of torch.func: take exact\(\) or unroll\(\)$",
    ),
    "reentrant": (reentrant, r"use_reentrant=True\) is for .backward\(\) alone: use_reentrant=False$"),
}


@pytest.mark.parametrize("name", TORCH)
def test_what_torch_cannot_do_is_told_with_a_remedy(name):
    fails, message = TORCH[name]
    with pytest.raises((RuntimeError, NotImplementedError)) as theirs:
        fails()
    assert not isinstance(theirs.value, InputError)
    with pytest.raises(InputError, match=message) as found, autodiff.explained():
        fails()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("error", [RuntimeError("the disk is full"), NotImplementedError("later"), KeyError("w")])
def test_any_other_error_passes_as_it_is(error):
    with pytest.raises(type(error)) as found, autodiff.explained():
        raise error
    assert found.value is error


def test_what_forward_mode_cannot_take_is_told_in_one_line():
    def fails(_):
        raise RuntimeError("no rule for this\nand a page about it")

    with pytest.raises(InputError, match=r"function \(no rule for this\): take exact\(\), or method='replay'$"):
        forward_mode.jvp(fails, (X,), (X,))


# ---------------------------------------------------------------- vmap inside of what is differentiated


def seen_by(around, tensors=()):
    """What `across_vmap` says within transforms, the first of them outermost."""
    said = []

    def look(x):
        said.append(torch_private.across_vmap([x, *tensors]))
        return x.sum()

    def within(fn, *names):
        if not names:
            return fn
        inside = within(fn, *names[1:])
        if names[0] == "vmap":
            return lambda x: torch.vmap(inside)(x.expand(2, *x.shape)).sum()
        if names[0] == "grad":
            return lambda x: torch.func.grad(inside)(x).sum()
        return lambda x: torch.func.jvp(inside, (x,), (x,))[1]

    within(look, *around)(X)
    return said[0]


@pytest.mark.parametrize("around", ["grad vmap", "jvp vmap", "vmap grad vmap", "grad vmap vmap", "grad vmap grad"])
def test_a_vmap_inside_of_a_derivative_is_noticed(around):
    assert seen_by(around.split())


@pytest.mark.parametrize("around", ["", "grad", "jvp", "grad grad", "vmap", "vmap vmap", "vmap grad", "vmap grad jvp"])
def test_a_vmap_that_no_derivative_is_around_is_none(around):
    assert not seen_by(around.split())


def test_a_vmap_inside_of_autograd_is_noticed_by_what_requires_a_gradient():
    """By any one of the tensors, whatever wraps it; not where nothing is recorded."""
    leaf = torch.ones(2, requires_grad=True)
    assert seen_by(["vmap"], [leaf])
    assert seen_by(["vmap", "vmap"], [torch.ones(2), leaf])
    assert not seen_by([], [leaf])
    with torch.no_grad():
        assert not seen_by(["vmap"], [leaf])
    said = []
    torch.vmap(lambda x: said.append(torch_private.across_vmap([x])) or x)(leaf[None])
    assert said == [True]


def test_what_is_pulled_back_within_a_vmap_is_cut_from_what_is_around():
    """Nothing goes through it, so that nothing in it need mind the vmap."""
    said = []

    def valued(x):
        said.append(torch_private.across_vmap([x]))
        return (x**2).sum(), ()

    leaf = torch.ones(1, 2, requires_grad=True)
    grads = torch.vmap(lambda x: autodiff.value_and_grad(valued, x)[2])(leaf)
    assert torch.equal(grads, torch.full((1, 2), 2.0))
    assert said == [False]


def test_the_formulas_of_forward_mode_are_loaded_without_a_word_and_once(monkeypatch):
    asked = []

    def load(name):
        warnings.warn("of what torch calls there", DeprecationWarning, stacklevel=2)
        asked.append(name)

    torch_private.load_forward_formulas.cache_clear()
    monkeypatch.setattr(importlib, "import_module", load)
    filters = list(warnings.filters)
    for _ in range(2):
        assert_close_tree(forward_mode.jvp(torch.sin, (X,), (X,)), (X.sin(), X * X.cos()), rtol=1e-6)
    assert asked == ["torch._decomp.decompositions_for_jvp"]
    assert warnings.filters == filters


def attending(w, _x):
    return attended(w)


def looked_up(w, index):
    """A lookup in a table of one column, with a sparse gradient."""
    return (torch.nn.functional.embedding(index, w, sparse=True) ** 4).sum()


IN_STEPS = {
    "attention": (
        attending,
        r"second derivative of aten::_scaled.*method='difference' of scan and hypergradient; or att",
    ),
    "sparse": (looked_up, r"a sparse gradient cannot be differentiated again: look up with sparse=False$"),
}


@pytest.mark.parametrize("name", IN_STEPS)
def test_the_remedy_is_told_where_steps_are_differentiated(name):
    loss, message = IN_STEPS[name]
    index, start = torch.tensor([0, 1]), X.reshape(-1, 1) if name == "sparse" else X

    def after(w):
        return unroll(lambda w, x: w - 0.1 * inside.gradient(loss, w, x)[0], w, [index] * 2).sum()

    with pytest.raises(InputError, match=message):
        torch.autograd.grad(after(leaf := start.clone().requires_grad_()), leaf)
    if name == "attention":
        with pytest.raises(InputError, match=message):
            torch.func.grad(after)(X)
        with pytest.raises(InputError, match=message):
            bilevel.hypergradient(
                lambda w, theta, x: theta * loss(w, x),
                lambda w, theta: w.sum(),
                optim.sgd(0.1),
                torch.tensor(1.0),
                X,
                [index],
                method="reverse",
            )
