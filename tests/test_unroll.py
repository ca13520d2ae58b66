"""`unroll`: closed forms, finite differences, higher derivatives, and what it keeps in memory."""

import pytest
import torch
from asserts import assert_close_tree, assert_same_gradient, finite_differences

from metapl import optim, rng, tree
from metapl.errors import InputError
from metapl.unroll import METHODS, unroll

SIZE, EXAMPLES = 3, 5
X = rng.normal(rng.key(0), (EXAMPLES, SIZE), torch.float64)
RULES = {
    "sgd": optim.sgd(0.1),
    "nesterov": optim.sgd(0.02, momentum=0.9, nesterov=True, weight_decay=0.05),
    "adamw": optim.adamw(0.05, betas=(0.8, 0.9), weight_decay=0.1),
}


def vector(seed, size=SIZE):
    return rng.normal(rng.key(seed), (size,), torch.float64)


def loss(w, weights):
    return ((X @ w).tanh() * weights).sum() + (w**4).sum()


def learn(rule):
    """A step of learning with reweighted examples; the carry holds an integer step count and a constant."""

    def step(carry, weights):
        params, state, constant = carry
        grads = torch.func.grad(lambda p: loss(p["w"], weights))(params)
        updates, state = rule.update(grads, state, params)
        return tree.add(params, updates), state, constant

    return step


def start(rule, w):
    params = {"w": w}
    return params, rule.init(params), torch.tensor(2.0, dtype=torch.float64)


def exam(rule, w, weights, method):
    params, _, constant = unroll(learn(rule), start(rule, w), weights, method=method)
    return constant * (params["w"] ** 3).sum()


@pytest.mark.parametrize("method", METHODS)
def test_linear_recurrence_in_closed_form(method):
    """w ← w − r w: the product of 1 − r_k, and its derivatives."""
    rates = [torch.tensor(rate, dtype=torch.float64) for rate in (0.5, 0.2, -0.25)]

    def last(w, rates):
        return unroll(lambda w, rate: w - rate * w, w, rates, method=method)

    w = torch.tensor(3.0, dtype=torch.float64)
    assert last(w, rates).item() == pytest.approx(3.0 * 0.5 * 0.8 * 1.25, rel=1e-15)
    to_w, to_rates = torch.func.grad(last, argnums=(0, 1))(w, rates)
    assert to_w.item() == pytest.approx(0.5 * 0.8 * 1.25, rel=1e-15)
    expected = [-3.0 * 0.8 * 1.25, -3.0 * 0.5 * 1.25, -3.0 * 0.5 * 0.8]
    assert [rate.item() for rate in to_rates] == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [1, 4])
def test_derivatives_in_carry_and_inputs_equal_finite_differences(steps, rule, method):
    w, weights = vector(1), [vector(10 + k, EXAMPLES) for k in range(steps)]
    expected = finite_differences(lambda leaves: exam(RULES[rule], leaves[0], leaves[1:], method), [w, *weights])
    to_w, to_weights = torch.func.grad(lambda w, weights: exam(RULES[rule], w, weights, method), argnums=(0, 1))(
        w, weights
    )
    # The first step of AdamW on a gradient near 0 is steep, hence the tolerance of the differences.
    assert_same_gradient([to_w, *to_weights], expected, norm_tol=1e-6, cosine_tol=1e-11)


@pytest.mark.parametrize("rule", RULES)
def test_backward_and_torch_func_agree(rule):
    w, weights = vector(1), [vector(10 + k, EXAMPLES) for k in range(3)]
    expected = torch.func.grad(lambda w, weights: exam(RULES[rule], w, weights, "reverse"), argnums=(0, 1))(w, weights)
    leaf, leaves = w.clone().requires_grad_(), [one.clone().requires_grad_() for one in weights]
    exam(RULES[rule], leaf, leaves, "replay").backward()
    assert_close_tree([leaf.grad, *(one.grad for one in leaves)], [expected[0], *expected[1]], rtol=1e-13)


@pytest.mark.parametrize("rule", RULES)
def test_second_derivatives_see_every_carry(rule):
    weights = [vector(10 + k, EXAMPLES) for k in range(3)]

    def squared(w, method):
        return (torch.func.grad(lambda w: exam(RULES[rule], w, weights, method))(w) ** 2).sum()

    w = vector(1)
    (expected,) = finite_differences(lambda leaves: squared(leaves[0], "reverse"), [w])
    found = torch.func.grad(lambda w: squared(w, "replay"))(w)
    assert_same_gradient([found], [expected], norm_tol=1e-6, cosine_tol=1e-11)
    leaf = w.clone().requires_grad_()
    (first,) = torch.autograd.grad(exam(RULES[rule], leaf, weights, "replay"), leaf, create_graph=True)
    (second,) = torch.autograd.grad((first**2).sum(), leaf)
    assert_close_tree(second, found, rtol=1e-12)


def test_only_what_is_asked_for_is_differentiated():
    """Inputs that need no gradient, a carry that the exam does not read, a step that ignores its input."""
    w = vector(1).requires_grad_()
    carry = unroll(lambda c, _: (c[0] * 2.0, c[1] * 3.0), (w, torch.ones(2)), [torch.tensor(1), torch.tensor(2)])
    carry[0].sum().backward()
    assert torch.equal(w.grad, torch.full((SIZE,), 4.0, dtype=torch.float64))
    assert torch.equal(carry[1], torch.full((2,), 9.0))


def test_inputs_are_not_modified_and_nothing_is_random():
    rule, w, weights = RULES["adamw"], vector(1), [vector(10, EXAMPLES), vector(11, EXAMPLES)]
    kept = [w.clone(), *(one.clone() for one in weights)]
    once = [exam(rule, w, weights, "replay") for _ in range(2)]
    assert torch.equal(*once)
    assert all(torch.equal(a, b) for a, b in zip([w, *weights], kept, strict=True))


def test_no_steps_give_the_carry_back():
    w = vector(1)
    assert unroll(learn(RULES["sgd"]), w, []) is w


def test_bad_calls_are_refused():
    with pytest.raises(InputError, match="did you mean 'replay'"):
        unroll(lambda c, _: c, vector(1), [vector(2)], method="reply")
    with pytest.raises(ValueError, match="structure"):
        unroll(lambda c, _: (c, c), vector(1), [vector(2)])


def saved_numbers(method, steps, width=256):
    """How many numbers autograd keeps between the way there and the way back, in a step with wide activations."""
    w, x = vector(1).requires_grad_(), rng.normal(rng.key(2), (width, SIZE), torch.float64)

    def step(w, rate):
        hidden = (x @ w).tanh()  # the gradient of mean tanh² by hand: torch.func.grad refuses the hooks
        return w - rate * x.T @ (2.0 * hidden * (1.0 - hidden**2)) / width

    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (kept.update({t.data_ptr(): t.numel()}), t)[1], lambda t: t
    ):
        last = unroll(step, w, [torch.tensor(0.1, dtype=torch.float64)] * steps, method=method)
    assert last.requires_grad
    return sum(kept.values())


def test_replay_keeps_carries_and_inputs_only():
    steps = 16
    assert saved_numbers("replay", steps) <= steps * SIZE + 1
    assert saved_numbers("reverse", steps) > 10 * saved_numbers("replay", steps)
