"""What is no tensor, has no gradient or is not a scalar, and what the error says of it."""

import numpy as np
import pytest
import torch
from torch import nn

import metapl as mp
from metapl.registry.errors import InputError

TWO, STEPS = torch.ones(2), torch.zeros(3, 2)


def inner(params, theta, batch):
    return (params - batch).square().sum() * theta


def outer(params, theta):
    return params.sum()


def hyper(theta=torch.tensor(0.5), params=TWO, batches=STEPS, optimizer=mp.sgd(0.1), **how):  # noqa: B008
    return mp.hypergradient(inner, outer, optimizer, theta, params, batches, **how)


SAID = {
    "theta is a number": (lambda: hyper({"rate": 0.5}), r"^theta at \['rate'\]: float is no tensor: make it a tensor"),
    "theta is a module": (lambda: hyper(nn.Linear(1, 1)), r"^theta: Linear is no tensor: take dict\(module\.named_par"),
    "params is a module": (lambda: hyper(params=nn.Linear(1, 1)), r"^params: Linear is no tensor"),
    "params is a generator": (
        lambda: hyper(params=nn.Linear(1, 1).parameters()),
        "generator is no tensor: make a",
    ),
    "an optimiser of torch": (lambda: hyper(optimizer=torch.optim.SGD), r"torch\.optim\.SGD is no function of tensors"),
    "a loader": (
        lambda: hyper(batches=iter([TWO])),
        r"^batches is .* has a list_iterator, not a list; take list\(…\) of batches that come one by one$",
    ),
    "an inner loss is a number": (
        lambda: mp.grad_inside(lambda w: 0.0, TWO),
        "must be a scalar tensor, it is float",
    ),
    "params are whole numbers": (
        lambda: mp.grad_inside(lambda p: p["w"].sum(), {"w": TWO, "n": torch.tensor(3)}),
        r"^the params of an inner gradient at \['n'\]: a tensor of torch\.int64 has no gradient: pass it apart",
    ),
    "an inner module": (lambda: mp.grad_inside(lambda m: m.weight.sum(), nn.Linear(1, 1)), "Linear is no tensor"),
    "a point is a module": (lambda: mp.value_and_grad(lambda m: 0.0, nn.Linear(1, 1)), "point of a derivative: Linear"),
    "a value is a vector": (
        lambda: mp.value_and_grad(lambda w: w**2, TWO),
        r"returns a scalar, not \[2\]",
    ),
    "a value is a number": (lambda: mp.value_and_grad(lambda w: 1.0, TWO), "returns a scalar, not float"),
    "a solution is a number": (
        lambda: mp.implicit.root(lambda w, t: w - t, lambda t: 1.0, TWO),
        r"^the solution of solve\(\): float is no tensor",
    ),
    "a solution has a count": (
        lambda: mp.implicit.root(lambda w, t: w, lambda t: {"w": t, "n": torch.tensor(3)}, TWO),
        r"^the solution of solve\(\) at \['n'\]: a tensor of torch\.int64",
    ),
    "a direction is broadcast": (
        lambda: mp.hvp(lambda w: (w**3).sum(), TWO, TWO[:1]),
        r"^along must be shaped as params, \[2\]: it is \[1\]$",
    ),
    "a direction of ggn": (lambda: mp.ggn(lambda w: w, torch.sum, TWO, {"w": TWO}), "^along must be shaped as params"),
    "a seed is a text": (lambda: mp.key("a"), r"^keys are made from integers: 'a' is a str$"),
    "a carry of another structure": (
        lambda: mp.scan(lambda c, x: ({**c, "b": x}, ()), {"a": TWO}, STEPS),
        r"a carry of structure \{'a': \*\} into \{'a': \*, 'b': \*\}$",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_the_error_is_one_line_that_says_what_and_where(name):
    call, said = SAID[name]
    with pytest.raises(ValueError, match=said) as found:
        call()
    assert "\n" not in str(found.value)


def test_value_and_grad_names_the_kernel_without_a_second_derivative():
    x = torch.ones(1, 1, 4, 8)

    def outer(w):
        def loss(w):
            return nn.functional.scaled_dot_product_attention(x * w, x, x * w).square().mean()

        return (w - mp.grad_inside(loss, w)[0]).square()

    with pytest.raises(InputError, match=r"lacks the second derivative of .*sdpa_kernel\(SDPBackend\.MATH\)$"):
        mp.value_and_grad(outer, TWO[0])


def test_several_keys_where_one_is_wanted():
    model = mp.from_module(nn.Dropout)
    with pytest.raises(InputError, match=r"^key has the shape \[3\]: a pass takes one of these keys, such as key"):
        model.apply({}, {}, TWO, train=True, key=torch.stack(mp.split(mp.key(0), 3)))


def test_a_seed_is_any_integer():
    assert torch.equal(mp.key(np.int64(3)), mp.key(3))


def test_steps_without_batches_are_counted():
    found = mp.hypergradient(lambda p, t, _: t * p.square().sum(), outer, mp.sgd(0.1), TWO[0], TWO, None, length=3)
    expected = mp.hypergradient(lambda p, t, _: t * p.square().sum(), outer, mp.sgd(0.1), TWO[0], TWO, [TWO] * 3)
    assert torch.equal(found.grads, expected.grads)
    assert torch.allclose(found.params, TWO * 0.8**3)
