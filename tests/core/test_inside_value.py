"""`inner.value_and_gradient`: the loss itself, as differentiable as its gradient; and what a loss may return."""

import pytest
import torch
from asserts import assert_close_tree

from metapl.core import hvp, inside
from metapl.core.unrolling import METHODS, unroll

W = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
RATES = [torch.tensor(rate, dtype=torch.float64) for rate in (0.05, 0.1, 0.02)]


def quartic(w, scale):
    return scale * (w**4).sum() / 4.0, {"norm": w.norm()}


def total(rates, scale, method):
    """The sum of the training losses before each step and after the last."""

    def step(carry, rate):
        w, total = carry
        value, _, grads = inside.value_and_gradient(quartic, w, scale)
        return w - rate * grads, total + value

    last, losses = unroll(step, (W, W.new_zeros(())), rates, method=method)
    return losses + quartic(last, scale)[0]


def by_hand(rates, scale):
    w, total = W, 0.0
    for rate in rates:
        total = total + scale * (w**4).sum() / 4.0
        w = w - rate * scale * w**3
    return float(total + scale * (w**4).sum() / 4.0)


EXACT = [method for method in METHODS if method != "stopped"]


@pytest.mark.parametrize("method", EXACT)
def test_a_sum_of_training_losses_has_a_gradient(method):
    """In the learning rates and in an argument of the loss, by central differences of plain arithmetic."""
    scale = torch.tensor(0.7, dtype=torch.float64)
    leaves = [*(rate.clone().requires_grad_() for rate in RATES), scale.clone().requires_grad_()]
    value = total(leaves[:3], leaves[3], method)
    assert float(value.detach()) == pytest.approx(by_hand(RATES, scale), rel=1e-12)
    found = torch.autograd.grad(value, leaves)
    near = 1e-3 if method == "difference" else 1e-7
    for index, grad in enumerate(found):
        ahead, behind = (
            [leaf.detach() + (i == index) * sign * 1e-6 for i, leaf in enumerate(leaves)] for sign in (1, -1)
        )
        slope = (by_hand(ahead[:3], ahead[3]) - by_hand(behind[:3], behind[3])) / 2e-6
        assert float(grad) == pytest.approx(slope, rel=near, abs=1e-8)
    by_func = torch.func.grad(lambda rates: total(rates, scale, method))(RATES)
    assert_close_tree(by_func, list(found[:3]), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("method", EXACT)
def test_only_the_value_is_differentiated(method):
    """d value / d w = scale w³, and nothing comes of the gradient beside it."""

    def outer(w, scale):
        def step(carry, _):
            value, _, _ = inside.value_and_gradient(quartic, carry[0], scale)
            return carry[0], carry[1] + value

        return unroll(step, (w, w.new_zeros(())), [torch.zeros(())], method=method)[1]

    found = torch.func.grad(outer, argnums=(0, 1))(W, torch.tensor(0.7, dtype=torch.float64))
    assert_close_tree(found, (0.7 * W**3, (W**4).sum() / 4.0), rtol=1e-12)


def test_aux_is_data():
    w = W.clone().requires_grad_()
    value, aux, grads = inside.value_and_gradient(quartic, w, torch.tensor(1.0))
    assert value.requires_grad
    assert grads.requires_grad
    assert not aux["norm"].requires_grad
    assert_close_tree(torch.autograd.grad(value, w)[0], W**3, rtol=1e-12)


def test_without_gradients_nothing_is_recorded():
    with torch.no_grad():
        value, _, grads = inside.value_and_gradient(quartic, W.clone().requires_grad_(), torch.tensor(1.0))
    assert not value.requires_grad
    assert_close_tree(grads, W**3, rtol=1e-12)


@pytest.mark.parametrize("product", [None, hvp.forward_over_reverse])
def test_a_loss_may_return_its_scalar_alone(product):
    with hvp.using(product):
        grads, aux = inside.gradient(lambda w: (w**2).sum(), W)
    assert_close_tree(grads, 2.0 * W, rtol=1e-14)
    assert aux == ()


@pytest.mark.parametrize("product", [None, hvp.forward_over_reverse])
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda w: w**2, r"must be a scalar tensor, it is \[3\]: take its mean"),
        (lambda w: (3.0, ()), "must be a scalar tensor, it is float"),
        (lambda w: ((w**2).sum(), {"a": "text"}), "must be a tree of tensors, it has 'text', a str"),
    ],
)
def test_what_a_loss_must_not_return(loss, message, product):
    with hvp.using(product), pytest.raises(ValueError, match=message):
        inside.gradient(loss, W)


def test_a_stacked_tensor_is_no_list_of_inputs():
    with pytest.raises(ValueError, match=r"one entry a step: of a stacked tensor, list\(inputs\)"):
        unroll(lambda w, _: w, W, torch.zeros(3, 2))


@pytest.mark.parametrize("vmap", [False, True])
@pytest.mark.parametrize("product", [hvp.forward_over_reverse, hvp.difference(), hvp.stopped])
def test_a_loss_that_is_one_of_its_arguments(product, vmap):
    """Its derivative is 1 in itself, and its gradient in the parameters zero."""

    def valued(bias):
        with hvp.using(product):
            value, aux, grads = inside.value_and_gradient(lambda w, bias: (bias, {"passed": bias}), W, bias)
        return 2.0 * value + grads.sum() + aux["passed"]

    bias = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    value = torch.vmap(valued)(bias[None])[0] if vmap else valued(bias)
    assert value == 9.0
    assert torch.autograd.grad(value, bias)[0] == 2.0


@pytest.mark.parametrize("product", [hvp.forward_over_reverse, hvp.difference(), hvp.stopped])
def test_what_a_loss_computes_is_not_copied(product):
    made = []

    def loss(w, x):
        made.extend([(w * x).sum(), w * x])
        return made[0], made[1]

    with hvp.using(product):
        value, aux, _ = inside.value_and_gradient(loss, W.clone().requires_grad_(), W)
    assert [value.data_ptr(), aux.data_ptr()] == [one.data_ptr() for one in made]


@pytest.mark.parametrize(
    "product", [None, hvp.forward_over_reverse, hvp.difference(1e-3)], ids=["none", "mixed", "difference"]
)
@pytest.mark.parametrize("transformed", [False, True])
def test_a_gradient_of_which_one_part_is_used(transformed, product):
    """Of Σ a² b³ the part 2 a b³ alone: its derivatives are 2 b³ and 6 a b²; nothing comes from the other part."""
    at = (W, 0.5 + W**2)

    def part(a, b):
        with hvp.using(product):
            grads, _ = inside.gradient(lambda p: (p["a"] ** 2 * p["b"] ** 3).sum(), {"a": a, "b": b})
        return grads["a"].sum()

    if transformed:
        found = torch.func.grad(part, argnums=(0, 1))(*at)
    else:
        leaves = [one.clone().requires_grad_() for one in at]
        found = torch.autograd.grad(part(*leaves), leaves)
    a, b = at
    assert_close_tree(list(found), [2.0 * b**3, 6.0 * a * b**2], rtol=1e-5)


class _OnceOnly(torch.autograd.Function):
    """x², whose backward cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, along):
        (x,) = ctx.saved_tensors
        return 2.0 * x * along


def test_a_gradient_that_nobody_differentiates_again_may_be_of_once_differentiable_functions():
    value, _, grads = inside.value_and_gradient(lambda w: _OnceOnly.apply(w).sum(), W)
    assert float(value) == float((W**2).sum())
    assert_close_tree(grads, 2.0 * W, rtol=0.0)
