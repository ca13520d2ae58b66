"""`unroll`: finite differences of plain steps, closed forms, every way to ask for a derivative, nesting, truncation."""

import functools

import pytest
import torch
from asserts import assert_close_tree, assert_pure, assert_same_gradient, finite_differences
from unrolled import EXACT

from metapl import optim
from metapl.core import hvp, inside, rng, tree
from metapl.core.unrolling import unroll
from metapl.registry.errors import InputError

SIZE, EXAMPLES = 2, 3
X = rng.normal(rng.key(0), (EXAMPLES, SIZE), torch.float64)
RULES = {
    "sgd": optim.sgd(0.1),
    "nesterov": optim.sgd(0.02, momentum=0.9, nesterov=True, weight_decay=0.05),
    "adamw": optim.adamw(0.05, betas=(0.8, 0.9), weight_decay=0.1),
    "rmsprop": optim.rmsprop(0.02, alpha=0.7, momentum=0.8, eps=0.1, centered=True),
}
WITH_PRODUCT = {**EXACT, "product-checkpoints": {"method": hvp.forward_over_reverse, "checkpoints": True}}
every_exact = pytest.mark.parametrize("how", WITH_PRODUCT.values(), ids=WITH_PRODUCT)


def vector(seed, size=SIZE):
    return rng.normal(rng.key(seed), (size,), torch.float64)


def loss(params, weights, constant):
    hidden = (X @ params["w"] + params["b"]).tanh()
    return (hidden * weights).sum() + constant * (params["w"] ** 4).sum() + params["b"] ** 2, {"hidden": hidden}


def by_inner(params, weights, constant):
    return inside.gradient(loss, params, weights, constant)[0]


def by_func(params, weights, constant):
    return torch.func.grad(lambda p: loss(p, weights, constant)[0])(params)


def by_hand(params, weights, constant):
    """Of plain autograd, and differentiable by it."""
    with torch.enable_grad():
        leaves = {name: p if p.requires_grad else p.detach().requires_grad_() for name, p in params.items()}
        found = torch.autograd.grad(loss(leaves, weights, constant)[0], list(leaves.values()), create_graph=True)
    return dict(zip(leaves, found, strict=True))


def by_constant(params, weights, constant):
    return tree.detach(by_hand(params, weights, constant))


def learn(rule, gradient):
    """Reweighted examples by way of the gradient and a shift past it; a constant, an integer, another order."""

    def step(carry, given):
        (params, state), rest = carry["state"], carry["rest"]
        grads = gradient(params, given["weights"], rest["constant"])
        updates, state = rule.update(grads, state, params)
        params = {name: params[name] + updates[name] + given["shift"] for name in reversed(params)}
        return {"rest": {"count": rest["count"] + 1, "constant": rest["constant"]}, "state": (params, state)}

    return step


def plain(step, carry, inputs):
    for given in inputs:
        carry = step(carry, given)
    return carry


@functools.cache
def start(name):  # with a warm optimiser
    params = {"w": torch.tensor([0.7, -0.4]).double(), "b": torch.tensor(0.3).double()}
    carry = {"state": (params, RULES[name].init(params)), "rest": {"constant": torch.tensor(0.4).double()}}
    carry["rest"]["count"] = torch.tensor(0)
    return tree.detach(plain(learn(RULES[name], by_hand), carry, [given(90), given(91)]))


def given(seed):
    return {"weights": vector(seed, EXAMPLES), "shift": 0.1 * vector(seed + 1000, 1)[0]}


def numbers(name, steps):
    floats = [leaf for leaf in tree.leaves(start(name)) if leaf.is_floating_point()]
    return [*floats, *(leaf for k in range(steps) for leaf in tree.leaves(given(10 + k)))]


def outer_batch(name, leaves, gradient, loop):
    """Of every float in the last carry, the optimiser's memory and the constant among them."""
    first, structure = tree.flatten(start(name))
    rest = iter(leaves)
    carry = tree.unflatten([next(rest) if leaf.is_floating_point() else leaf for leaf in first], structure)
    rest = list(rest)
    inputs = [{"weights": rest[k], "shift": rest[k + 1]} for k in range(0, len(rest), 2)]
    after = loop(learn(RULES[name], gradient), carry, inputs)
    assert after["rest"]["count"].dtype == torch.int64
    last = structure.flatten_up_to(after)
    return sum(((k + 1.0) * leaf).sin().sum() for k, leaf in enumerate(last) if leaf.is_floating_point())


def by_backward(fn, at):
    leaves = [leaf.clone().requires_grad_() for leaf in at]
    fn(leaves).backward()
    return [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]


def by_vjp(fn, at):
    """The way back is taken after the transform has ended."""
    value, pull = torch.func.vjp(fn, at)
    return pull(torch.ones_like(value))[0]


def paired(derivative):
    """Of two problems solved at once, the second."""
    return lambda fn, at: [one[1] for one in derivative(fn, [torch.stack([0.9 * leaf, leaf]) for leaf in at])]


WAYS = {
    "grad": lambda fn, at: torch.func.grad(fn)(at),
    "backward": by_backward,
    "vjp": by_vjp,
    "jacrev": lambda fn, at: torch.func.jacrev(fn)(at),
    "vmap": paired(lambda fn, pairs: torch.vmap(torch.func.grad(fn))(pairs)),
    "through-vmap": paired(lambda fn, pairs: by_backward(lambda pairs: torch.vmap(fn)(pairs).sum(), pairs)),
}


@functools.cache
def truth(name, steps):
    return finite_differences(
        lambda at: outer_batch(name, at, by_hand, plain).detach(), numbers(name, steps), width=3e-4
    )


@functools.cache
def first_order(name, steps):
    return by_backward(lambda at: outer_batch(name, at, by_constant, plain), numbers(name, steps))


@every_exact
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_derivatives_in_carry_and_inputs_equal_finite_differences(steps, name, how):
    for way in ("grad", "backward"):
        found = WAYS[way](
            lambda at: outer_batch(name, at, by_inner, functools.partial(unroll, **how)), numbers(name, steps)
        )
        assert_same_gradient(found, truth(name, steps), norm_tol=1e-8, cosine_tol=1e-15)


@every_exact
@pytest.mark.parametrize("gradient", [by_inner, by_func])
@pytest.mark.parametrize("way", WAYS)
def test_however_the_derivative_is_asked_for(way, gradient, how):
    """5 steps: segments of 3 and 2."""
    loop = functools.partial(unroll, **how)
    found = WAYS[way](lambda at: outer_batch("nesterov", at, gradient, loop), numbers("nesterov", 5))
    assert_same_gradient(found, truth("nesterov", 5), norm_tol=1e-8, cosine_tol=1e-15)
    assert not any(leaf.requires_grad for leaf in found)


@functools.cache
def second_truth():
    def squared(at):
        leaves = [leaf.requires_grad_() for leaf in at]
        return sum((g**2).sum() for g in torch.autograd.grad(outer_batch("adamw", leaves, by_hand, plain), leaves))

    return finite_differences(squared, numbers("adamw", 3), width=3e-4)


@every_exact
def test_second_derivatives_see_every_carry(how):
    """By .backward() twice, by torch.func twice, and a transform of a way back whose own transform has ended."""

    def fn(at):
        return outer_batch("adamw", at, by_inner, functools.partial(unroll, **how))

    def recorded(leaves):
        return sum((g**2).sum() for g in torch.autograd.grad(fn(leaves), leaves, create_graph=True))

    at, expected = numbers("adamw", 3), second_truth()
    assert_same_gradient(by_backward(recorded, at), expected, norm_tol=1e-7, cosine_tol=1e-13)
    for outer, within in [("grad", "grad"), ("jacrev", "vjp"), ("backward", "grad")]:
        found = WAYS[outer](lambda at, way=WAYS[within]: sum((g**2).sum() for g in way(fn, at)), at)
        assert_same_gradient(found, expected, norm_tol=1e-7, cosine_tol=1e-13)


@pytest.mark.parametrize("outer", ["reverse", "replay", "mixed-checkpoints", "stopped"])
@every_exact
def test_an_unroll_in_the_step_of_an_unroll(how, outer):
    """The nearest unroll says how gradients are differentiated; "reverse" leaves it to what is around it."""
    constant = outer == "stopped" and how == EXACT["reverse"]
    expected = (first_order if constant else truth)("nesterov", 6)

    def nested(step, carry, inputs):
        pairs = [inputs[:2], inputs[2:4], inputs[4:]]
        return unroll(
            lambda carry, pair: unroll(step, carry, pair, **how), carry, pairs, **EXACT.get(outer, {"method": outer})
        )

    for way in ("grad", "backward"):
        found = WAYS[way](lambda at: outer_batch("nesterov", at, by_inner, nested), numbers("nesterov", 6))
        assert_same_gradient(found, expected, norm_tol=1e-8, cosine_tol=1e-15)


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_first_order_is_the_adjoint_with_constant_gradients(name, checkpoints):
    """Through the optimiser's memory, its decay and the shifts; and whatever is called leaves its arguments alone."""
    loop = functools.partial(unroll, method="stopped", checkpoints=checkpoints)
    found = assert_pure(WAYS["grad"], lambda at: outer_batch(name, at, by_inner, loop), numbers(name, 5))
    assert_close_tree(found, first_order(name, 5), rtol=1e-13)


def test_bad_calls_are_refused_and_no_steps_are_none():
    one = vector(1)
    assert unroll(lambda c, _: c, one, []) is one
    with pytest.raises(InputError, match="did you mean 'replay'"):
        unroll(None, one, [one], method="reply")
    with pytest.raises(InputError, match=r"unroll\(method='first-order'\) is now method='stopped'"):
        unroll(None, one, [one], method="first-order")
    with pytest.raises(ValueError, match="need a method that replays"):
        unroll(None, one, [one], method="reverse", checkpoints=True)
    for after in [{"a": one}, {"a": one, "b": one, "c": one}, {"a": one, "b": 2.0}, {"a": one, "b": None}, [one, one]]:
        for how in ({}, {"checkpoints": True}):
            with pytest.raises(ValueError, match="structure"):
                unroll(lambda carry, _, after=after: after, {"a": one, "b": one}, [one, one], **how)
    for carry, inputs in [({"a": one}, [0.1, 0.2]), ({"a": 1.0}, [one])]:
        with pytest.raises(ValueError, match="must be a tensor"):
            unroll(lambda carry, _: carry, carry, inputs)


@every_exact
def test_what_a_step_may_return(how):
    """An argument, a tensor twice, a constant from outside, which stays as it is: 2 w, 2 w² … 4 w³, 8 w⁵ and 8 w⁵."""
    constant, w = vector(5), vector(1).requires_grad_()

    def step(carry, _):
        a, b, *_ = carry
        product = a * b
        return b, product, product.view_as(product), constant

    one, two, three, four = unroll(step, (w, 2.0 * w, w.detach(), constant), [None] * 3, **how)
    (one * two + three + four).sum().backward()
    assert_close_tree(w.grad, 8 * 32.0 * w.detach() ** 7 + 40.0 * w.detach() ** 4, rtol=1e-14)
    assert not constant.requires_grad
