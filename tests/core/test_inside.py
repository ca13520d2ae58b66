"""`inner.gradient`, and the products that differentiate it: exact, by differences, dropped."""

import contextlib
import functools
import itertools
import math

import pytest
import torch
from asserts import assert_close_tree, assert_pure, finite_differences, relative_error

from metapl.core import hvp, inside, rng, tree
from metapl.core.unrolling import unroll

PRODUCTS = {"none": None, "mixed": hvp.forward_over_reverse, "difference": hvp.difference(1e-4), "stopped": hvp.stopped}
every_product = pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
X = rng.normal(rng.key(0), (4, 2), torch.float64)
W = torch.tensor([0.7, -0.4]).double()
GIVEN = [rng.normal(rng.key(10 + k), (4,), torch.float64) for k in range(3)]


class Once(torch.autograd.Function):
    """tanh, whose derivative refuses to be differentiated; torch's `once_differentiable` lets some uses pass."""

    @staticmethod
    def forward(x):
        return x.tanh()

    @staticmethod
    def setup_context(ctx, _, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, cotangent):
        return Slope.apply(ctx.saved_tensors[0], cotangent)


class Slope(torch.autograd.Function):
    @staticmethod
    def forward(output, cotangent):
        return (1.0 - output**2) * cotangent

    @staticmethod
    def setup_context(ctx, _, output):
        pass

    @staticmethod
    def backward(ctx, cotangent):
        raise NotImplementedError("no second derivative")


def loss(w, weights, activation=torch.tanh):
    return (activation(X @ w["w"]) * weights).sum() + (w["w"] ** 4).sum(), ()


def learn(activation=torch.tanh):
    def step(params, given):
        grads, _ = inside.gradient(lambda w, g: loss(w, g, activation), params, given)
        return {"w": params["w"] - 0.1 * grads["w"]}

    return step


def grad(fn, *at):
    return torch.func.grad(fn, argnums=tuple(range(len(at))))(*at)


def autograd(fn, *at):
    leaves = [leaf.clone().requires_grad_() for leaf in at]
    return torch.autograd.grad(fn(*leaves), leaves)


def derivatives(method, outer_batch=lambda w: w.sin().sum(), **how):
    """In the start and in every input."""
    return autograd(
        lambda *at: outer_batch(unroll(learn(), {"w": at[0]}, at[1:], method=method, **how)["w"]), W, *GIVEN
    )


@functools.cache
def truth():
    def plain(at):
        w = at[0]
        for given in at[1:]:
            leaf = w.detach().requires_grad_()
            w = w - 0.1 * torch.autograd.grad(loss({"w": leaf}, given)[0], leaf)[0]
        return w.sin().sum()

    return finite_differences(plain, [W, *GIVEN])


@pytest.mark.parametrize("checkpoints", [False, True])
def test_the_error_of_differences_is_quadratic_in_the_radius(checkpoints):
    radii = [0.1 / 2**k for k in range(6)]
    found = [derivatives(hvp.difference(radius), checkpoints=checkpoints) for radius in radii]
    errors = [relative_error(one, truth()) for one in found]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(1.9 < order < 2.1 for order in orders), orders
    assert relative_error(derivatives("difference"), derivatives(hvp.difference(0.01))) == 0.0


def test_differences_know_no_size():
    """Of a batch every problem has a radius of its own, whatever the length of its cotangent."""

    def outer_batch(w, size):
        return size * unroll(learn(), {"w": w}, GIVEN, method="difference")["w"].sin().sum()

    sizes = torch.tensor([1e-12, 1.0, 1e12]).double()
    found = torch.vmap(torch.func.grad(outer_batch), (None, 0))(W, sizes) / sizes[:, None]
    assert_close_tree(found, derivatives("difference")[0].expand(3, 2), rtol=1e-10)


def test_differences_along_nothing_are_nothing():
    """To the last bit: no 0 / 0, and no noise."""
    for one in derivatives("difference", outer_batch=lambda w: 0.0 * w.sum()):
        assert torch.equal(one, torch.zeros_like(one))

    for one in hvp.difference()(lambda w: (w**3, w.exp()), [W], [torch.zeros_like(W)]):
        assert torch.equal(one, torch.zeros_like(one))


@pytest.mark.parametrize("way", [grad, autograd])
def test_differences_need_no_second_derivative(way):
    def take(method):
        def outer_batch(*at):
            return unroll(learn(Once.apply), {"w": at[0]}, at[1:], method=method)["w"].sin().sum()

        return way(outer_batch, W, *GIVEN)

    assert relative_error(take("difference"), truth()) < 1e-4
    assert relative_error(take(hvp.difference(1e-4)), truth()) < 1e-7
    with pytest.raises(NotImplementedError, match="no second derivative"):
        take("replay")


def cube(p, x, count):
    """∇ = 3 w² x, and an aux with everything that is awkward."""
    aux = {"passed": x, "count": count, "params": p["w"], "fresh": p["w"] * x, "pair": (x, x), "empty": ()}
    return (p["w"] ** 3 * x).sum(), aux


def taken(product, w, x):
    with hvp.using(product):
        return inside.gradient(cube, {"unused": x.sum(), "w": w}, x, torch.tensor(4))


WAYS = {
    "grad": grad,
    "jacrev": lambda fn, *at: torch.func.jacrev(fn, argnums=tuple(range(len(at))))(*at),
    "vjp": lambda fn, *at: torch.func.vjp(fn, *at)[1](torch.ones(()).double()),
    "vmap": lambda fn, *at: [one[0] for one in torch.vmap(lambda *at: grad(fn, *at))(*(leaf[None] for leaf in at))],
    "autograd": autograd,
}


@pytest.mark.parametrize("product", [None, hvp.forward_over_reverse], ids=["none", "mixed"])
@pytest.mark.parametrize("way", WAYS)
def test_gradient_is_differentiable_by_every_transform(way, product):
    """Σ sin(3 w² x): 6 w x cos and 3 w² cos. The parameters and the rest may be one tensor: 9 w² cos."""
    x = torch.tensor([2.0, -0.5]).double()
    slope = (3.0 * W**2 * x).cos()

    def total(w, x):
        return taken(product, w, x)[0]["w"].sin().sum()

    expected = [6.0 * W * x * slope, 3.0 * W**2 * slope]
    assert_close_tree(list(WAYS[way](total, W, x)), expected, rtol=1e-14)
    assert_close_tree(list(WAYS[way](lambda w: total(w, x), W)), expected[:1], rtol=1e-14)
    assert_close_tree(list(WAYS[way](lambda x: total(W, x), x)), expected[1:], rtol=1e-14)
    assert_close_tree(list(WAYS[way](lambda w: total(w, w), W)), [9.0 * W**2 * (3.0 * W**3).cos()], rtol=1e-14)
    if product is None:  # forward mode over a gradient outside of an unroll
        tangent = torch.func.jvp(lambda w: taken(None, w, 2.0 * W)[0]["w"], (W,), (W,))[1]
        assert_close_tree(tangent, 12.0 * W**3, rtol=1e-14)


@every_product
def test_values_aux_and_zeros(product):
    """What passes through aux comes back as data, integers and one tensor in two places too; unused gives zero."""

    def check(w, x):
        return *taken(product, w, x), taken(product, w, w)[0]

    x = torch.tensor([2.0, -0.5]).double()
    aux = {"passed": x, "count": torch.tensor(4), "params": W, "fresh": W * x, "pair": (x, x), "empty": ()}
    zero = torch.zeros(()).double()
    expected = ({"unused": zero, "w": 3.0 * W**2 * x}, aux, {"unused": zero, "w": 3.0 * W**3})
    assert_close_tree(assert_pure(check, W, x), expected, rtol=1e-15)
    found = torch.vmap(check)(torch.stack([W, x]), torch.stack([x, W]))
    assert_close_tree(tree.map(lambda leaf: leaf[0], found), expected, rtol=1e-15)
    leaf = W.clone().requires_grad_()
    grads, aux, _ = check(leaf, leaf)
    assert grads["w"].requires_grad
    assert not any(one.requires_grad for one in tree.leaves(aux))
    outer = torch.func.grad(lambda w: w.sum() + sum(one.double().sum() for one in tree.leaves(check(w, w)[1])))(W)
    assert torch.equal(outer, torch.ones(2).double())
    with torch.no_grad():
        assert not any(one.requires_grad for one in tree.leaves(check(leaf, x)))


@every_product
def test_the_gradient_of_a_constant_is_zero(product):
    def constant(w):
        with hvp.using(product):
            return inside.gradient(lambda p: (torch.ones(()), ()), {"w": w})[0]["w"]

    assert not constant(W).any()
    assert not torch.vmap(constant)(W[None]).any()


@every_product
def test_a_product_does_not_change_a_gradient_inside_of_a_gradient(product):
    """∇ of Σ (w − 0.1 · 3 w²)²: a product is for the derivatives of the result, not for its value."""

    def outer(p):
        grads, _ = inside.gradient(lambda q: ((q["w"] ** 3).sum(), ()), p)
        return (p["w"] - 0.1 * grads["w"]).square().sum(), ()

    with hvp.using(product):
        grads, _ = inside.gradient(outer, {"w": W})
    assert_close_tree(grads["w"], 2.0 * (W - 0.3 * W**2) * (1.0 - 0.6 * W), rtol=1e-14)


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_a_product_differentiates_one_gradient_and_not_those_inside_of_it(way, within):
    """Twice the second derivative of Σ (w − 0.1 · 3 w²)²: the gradient inside counts once, wherever one goes back.

    An exact product would say the same either way, and so would differences; one that doubles does not.
    """

    def double(gradient, at, along):
        return [2.0 * one for one in hvp.forward_over_reverse(gradient, at, along)]

    def outer(p):
        grads, _ = inside.gradient(lambda q: ((q["w"] ** 3).sum(), ()), p)
        return (p["w"] - 0.1 * grads["w"]).square().sum(), ()

    def slope(w):
        with hvp.using(double):
            return inside.gradient(outer, {"w": w})[0]["w"].sum()

    with hvp.using(double if within else None):
        (found,) = WAYS[way](slope, W)
    second = 2.0 * (1.0 - 0.6 * W) ** 2 - 1.2 * (W - 0.3 * W**2)
    assert_close_tree(found, 2.0 * second, rtol=1e-14)


def test_the_product_nests_and_is_restored_after_an_exception():
    def tells(name):
        return lambda gradient, at, along: (asked.append(name), [None] * 2)[1]

    def now():
        """Which product a gradient taken here is differentiated by."""
        asked.clear()
        leaf = W.clone().requires_grad_()
        with torch.enable_grad():
            grads, _ = inside.gradient(lambda p: ((p["w"] ** 3).sum(), ()), {"w": leaf})
            torch.autograd.grad(grads["w"].sum(), leaf, allow_unused=True)
        return asked[:]

    def fails(carry, _):
        if torch.is_grad_enabled():
            assert now() == ["b"]
            raise KeyError("on the way back")
        return carry * 2.0

    asked = []
    with hvp.using(tells("a")):
        with contextlib.suppress(ValueError), hvp.using(None):
            assert now() == []
            raise ValueError
        last = unroll(fails, W.clone().requires_grad_(), GIVEN, method=tells("b"))
        with pytest.raises(KeyError, match="way back"):
            last.sum().backward()
        assert now() == ["a"]
    assert now() == []


def test_differences_along_nothing_can_be_differentiated():
    """The derivative of a product in the direction, at no direction: zeros, and no 0 · ∞ on the way."""

    def total(along):
        return sum(one.sum() for one in hvp.difference()(lambda w: (w**3, w.exp()), [W], [along]))

    assert torch.equal(torch.func.grad(total)(torch.zeros_like(W)), torch.zeros_like(W))
