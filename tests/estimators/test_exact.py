"""Exact claims: finite differences of torch's own steps, in norm and direction, and `higher`.

The differences are good to about 10⁻¹⁰, their worst being 5·10⁻¹¹: every function here is smooth, and float64 leaves
the widths room. AdamW and the centred RMSprop are smooth as far as √v is away from zero: the warm steps put it there.
"""

import functools

import higher
import pytest
import torch
from asserts import assert_close_tree, assert_same_gradient, relative_error, richardson
from by_torch import gradients_of, inner_gradient, inner_product, load_torch, outer_gradient, run_torch, tuples
from problems import OPTIMIZERS, REFUSED, estimate, make
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from truths import RULES, differences, forced

from metapl.estimators import ESTIMATORS

DIFFERENTIATED = ["mlp", "dead-input", "batchnorm", "batchnorm-eval", "tied", "layernorm"]

EXACT = [
    *sorted(name for name, made in ESTIMATORS.items() if made().claim == "exact"),
    "exact:method=mixed",
    "exact:method=reverse",
    "truncated:steps=8",  # no more steps than that
]


def exact_for(rule):
    """Those that take the rule."""
    return [text for text in EXACT if rule not in REFUSED.get(text, ())]


def assert_exact(found, expected):
    """To 10⁻⁸ in norm and in angle, step by step."""
    for one, other in zip(found, expected, strict=True):
        assert_same_gradient(one, other, norm_tol=1e-8, cosine_tol=5e-17)


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("network", DIFFERENTIATED)
def test_one_step_equals_finite_differences(network, rule):
    for text in exact_for(rule):
        assert_exact(estimate(make(network, rule, batch=2), text).grads, differences(network, rule))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 8])
@pytest.mark.parametrize("rule", ["momentum", "nesterov", "adamw", "rmsprop"])
@pytest.mark.parametrize("network", ["mlp", "batchnorm", "tied", "layernorm"])
def test_several_steps_equal_finite_differences(network, rule, steps):
    batch = 2 if steps == 3 else 1  # the truth of eight steps takes a second as it is
    for text in exact_for(rule):
        feedback = estimate(make(network, rule, steps=steps, batch=batch), text)
        assert_exact(feedback.grads, differences(network, rule, steps, batch))


@pytest.mark.parametrize("rule", ["clipped", "cosine", "adam"])
def test_three_steps_of_other_rules(rule):
    """With an input that is exactly zero in the inner batches, where a root would have an infinite derivative."""
    for text in exact_for(rule):
        assert_exact(
            estimate(make("dead-input", rule, steps=3, batch=2), text).grads, differences("dead-input", rule, 3)
        )


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rule", ["momentum", "nesterov", "adamw with room", "rmsprop with room"])
def test_a_fresh_optimiser(rule, steps):
    case = make("mlp", RULES[rule], steps=steps, batch=2, warm=False)
    for text in exact_for(rule.split()[0]):
        assert_exact(estimate(case, text).grads, differences("mlp", rule, steps, warm=False))


@pytest.mark.xfail(strict=True, reason="running statistics are data: no gradient flows through them to a later step")
def test_unroll_differentiates_running_statistics():
    feedback = estimate(make("batchnorm-eval", "sgd", steps=3, batch=2), "unroll")
    assert relative_error(feedback.grads, differences("batchnorm-eval", "sgd", 3)) <= 1e-6


@pytest.mark.parametrize("labels", ["soft", "sampled", "argmax"])
@pytest.mark.parametrize(
    ("network", "rule"), [("batchnorm", "adamw"), ("linear-outer", "clipped"), ("tied", "rmsprop")]
)
@pytest.mark.parametrize("steps", [1, 3])
def test_all_agree_whatever_the_labels(network, rule, labels, steps):
    """Of hard labels there are no differences to take."""
    case = make(network, rule, labels, steps=steps, batch=3)
    other = estimate(case, "unroll")
    for text in exact_for(rule):
        one = estimate(case, text)
        assert_same_gradient(one.grads, other.grads, norm_tol=1e-10, cosine_tol=1e-20)
        assert_close_tree(one._replace(info={}, grads=()), other._replace(grads=()), rtol=1e-11)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov"])
def test_unroll_equals_higher(rule, steps):
    case = make("mlp", rule, steps=steps)
    module, optimizer, _ = load_torch(case)
    thetas = [theta.clone().requires_grad_() for theta in case.thetas]
    with higher.innerloop_ctx(module, optimizer) as (train_state, steps_taken):
        for theta, x in zip(thetas, case.inner_batches, strict=True):
            steps_taken.step(F.cross_entropy(train_state(x), torch.softmax(theta, dim=-1)))
        x, y = case.outer_batch
        expected = torch.autograd.grad(F.cross_entropy(train_state(x), y), thetas)
    assert_close_tree(estimate(case, "unroll").grads, expected, rtol=1e-12)


@pytest.mark.parametrize(("rule", "lr"), [("sgd", 0.3), ("momentum", 0.2)])
@pytest.mark.parametrize("draw", range(3))
def test_exact_for_a_draw_is_the_expected_score_function(rule, lr, draw):
    """Σ_y P(y) ⟨u, g(y)⟩ ∇ log P(y) over all label tuples y, with u = −lr v of the step on the draw."""
    case = make("mlp", rule, "sampled", batch=3)
    case = case._replace(key=case.key + draw)
    v = outer_gradient(case, case.problem.targets.apply(case.thetas[0], case.key))
    p = torch.softmax(case.thetas[0], dim=-1)
    expected = sum(
        (p * y).sum(-1).prod() * -lr * inner_product(v, inner_gradient(case, y)) * (y - p) for y in tuples(len(p))
    )
    assert_close_tree(estimate(case, "exact").grads, (expected,), rtol=1e-9)


@pytest.mark.parametrize(
    "text", [*EXACT, "score", "gumbel", "first-order", "forward", "taylor", "evolution", "difference"]
)
def test_scale_by_hand_for_sgd(text):
    """u = −lr v, so |u||g| = lr |v||g|: for one step everybody has it."""
    case = make("mlp", "sgd", "sampled")
    target = case.problem.targets.apply(case.thetas[0], case.key)
    g, v = inner_gradient(case, target), outer_gradient(case, target)
    assert_close_tree(estimate(case, text).scale, 0.3 * (inner_product(g, g) * inner_product(v, v)).sqrt(), rtol=1e-12)


@functools.cache
def scale_truth(rule, steps, *, constant):
    """Σ |u||g|, u by differences of torch's run in what is added to its gradients.

    `constant`: the gradients of later steps stay what they were, whatever is added to earlier ones.
    """
    case = make("linear", rule, steps=steps, batch=2)
    targets = [torch.softmax(theta, dim=-1) for theta in case.thetas]
    zeros = [{name: torch.zeros_like(value) for name, value in case.state.params.items()} for _ in targets]
    grads = [_gradient_before_step(case, targets, index) for index in range(steps)]

    def examined(nudges):
        return run_torch(case, targets, nudges, grads if constant else None)[0]

    u, error = richardson(examined, zeros, width=0.004, levels=3)
    assert error <= 3e-8
    return sum((inner_product(a, a) * inner_product(b, b)).sqrt() for a, b in zip(u, grads, strict=True))


def _gradient_before_step(case, targets, index):
    """The raw gradient of step `index`, before clipping."""
    _, module, _ = run_torch(case._replace(inner_batches=case.inner_batches[:index]), targets[:index])
    return gradients_of(F.cross_entropy(module.train()(case.inner_batches[index]), targets[index]), module)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rule", ["nesterov", "adamw", "clipped", "cosine", "rmsprop"])
def test_scale_sums_the_norms_of_u_and_g(rule, steps):
    """Those that differentiate nothing twice have the u of gradients that are constant."""
    soft = make("linear", rule, steps=steps, batch=2)
    drawn = forced(soft, [torch.softmax(theta, dim=-1) for theta in soft.thetas])  # as if these had been drawn
    told = [(soft, text) for text in exact_for(rule)] + [(drawn, "score"), (drawn, "gumbel")]
    for case, text in told:
        assert_close_tree(estimate(case, text).scale, scale_truth(rule, steps, constant=False), rtol=1e-8)
    nearly = estimate(soft, "difference:radius=1e-3").scale
    assert_close_tree(nearly, scale_truth(rule, steps, constant=False), rtol=1e-5)
    for case, text in [(soft, "forward:directions=1"), (soft, "evolution:pairs=1"), (drawn, "taylor")]:
        assert_close_tree(estimate(case, text).scale, scale_truth(rule, steps, constant=steps > 1), rtol=1e-8)


def test_the_two_kinds_of_scale_differ():
    assert abs(scale_truth("nesterov", 3, constant=True) / scale_truth("nesterov", 3, constant=False) - 1.0) > 1e-2


@pytest.mark.parametrize("text", ["exact", "exact:method=mixed", "unroll", "truncated:steps=8", "higher"])
def test_a_parameter_that_the_inner_loss_does_not_use(text):
    """Its gradient is zero, and the outer loss may still use it."""
    case = make("mlp", "momentum", batch=2)
    extra = {**case.state.params, "bias": torch.ones((), dtype=torch.float64)}
    state = case.state.opt_state
    state = state._replace(momentum={**state.momentum, "bias": torch.ones((), dtype=torch.float64)})

    def inner(params, *rest):
        return case.problem.inner({k: v for k, v in params.items() if k != "bias"}, *rest)

    def outer(params, *rest):
        plain = {k: v for k, v in params.items() if k != "bias"}
        return case.problem.outer(plain, *rest) * params["bias"]

    problem, train_state = case.problem._replace(inner=inner, outer=outer), case.state._replace(params=extra)
    changed = case._replace(problem=problem, state=train_state._replace(opt_state=state))
    after = 1.0 - 0.2 * 0.9  # the warm momentum moves it
    assert_exact(estimate(changed, text).grads, [after * theta for theta in differences("mlp", "momentum")])
