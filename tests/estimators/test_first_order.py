"""The score-function feedback: every label tuple enumerated, its sign, its baseline, and the released code's zero."""

import pytest
import torch
from asserts import assert_close_tree, assert_same_gradient, finite_differences, relative_error
from by_torch import (
    inner_gradient,
    inner_product,
    load_torch,
    outer_gradient,
    outer_torch,
    run_torch,
    soft_outer,
    tuples,
)
from problems import estimate, instance_of, make, sgd
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from truths import draws, expected_feedback, expected_gradient, forced

from metapl.core import rng, targets
from metapl.core.types import TargetTransform
from metapl.estimators import first_order

SUM = "first-order:baseline=0,reduction=sum"
MEAN = "first-order:baseline=0,reduction=mean"


@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov", "cosine"])
@pytest.mark.parametrize("text", [SUM, "score"])
def test_expectation_over_all_labels_is_exact_for_a_linear_outer_loss(text, rule):
    case = make("linear-outer", rule, "sampled", batch=3)
    mean = expected_feedback(case, text)
    assert_same_gradient(mean, expected_gradient(case), norm_tol=1e-9, cosine_tol=1e-18)
    assert_same_gradient(mean, estimate(case, "exact").grads, norm_tol=1e-9, cosine_tol=1e-18)


def test_reduction_mean_divides_by_the_batch():
    case = make("linear-outer", "momentum", "sampled", batch=3)
    assert_close_tree(3.0 * expected_feedback(case, MEAN)[0], expected_gradient(case)[0], rtol=1e-9)


def test_error_shrinks_with_the_learning_rate_for_a_curved_outer_loss():
    cases = [make("mlp", sgd(lr), "sampled", warm=False, batch=3) for lr in (0.08, 0.04, 0.02)]
    errors = torch.tensor([relative_error(expected_feedback(case, SUM), expected_gradient(case)) for case in cases])
    orders = torch.log2(errors[:-1] / errors[1:])
    assert ((orders > 0.9) & (orders < 1.1)).all(), f"errors {errors}, orders {orders}"
    assert errors[-1] > 1e-6, "an outer loss without curvature tests nothing"


def test_sign_rewards_labels_that_lowered_the_outer_loss():
    """Descending on the feedback makes the labels likelier if the step lowered the outer loss, else less likely."""
    case = make("mlp", sgd(1e-3), "sampled", warm=False, batch=3)
    before = outer_torch(case, load_torch(case)[0]).detach()
    rises = [(y, float(run_torch(case, [y])[0] - before)) for y in tuples(3)]
    steepest = max(abs(rise) for _, rise in rises)
    clear = [(y, rise) for y, rise in rises if abs(rise) > 0.1 * steepest]
    assert {rise > 0 for _, rise in clear} == {True, False}, "the draws must hold both kinds of step"
    for y, rise in clear:
        theta, feedback = case.thetas[0], estimate(forced(case, [y]), "first-order").grads[0]
        after = torch.log_softmax(theta - feedback / feedback.norm() * 1e-3, dim=-1)
        gain = ((after - torch.log_softmax(theta, dim=-1)) * y).sum()
        assert (gain > 0) == (rise < 0), f"outer loss rose by {rise:.3e}, log-probability by {gain:.3e}"


def by_hand(case, target, lr):
    """h = lr ⟨v, g⟩ and lr |v||g| of an SGD step, by torch."""
    g, v = inner_gradient(case, target), outer_gradient(case, target)
    return lr * inner_product(v, g), lr * (inner_product(v, v) * inner_product(g, g)).sqrt()


@pytest.mark.parametrize("decay", [0.0, 0.6, 0.99])
def test_baseline_is_a_moving_average_of_the_cosine(decay):
    estimator = first_order(baseline=decay, reduction="sum")
    memory, mean = estimator.init(), 0.0
    for draw in range(3):
        case = make("mlp", "sgd", "sampled")
        case = case._replace(key=rng.fold_in(case.key, draw))
        target = case.problem.targets.apply(case.thetas[0], case.key)
        h, scale = by_hand(case, target, 0.3)
        feedback, memory = estimator.estimate(instance_of(case), memory)
        score = target - torch.softmax(case.thetas[0], dim=-1)
        assert_close_tree(feedback.grads[0], -(h - mean * scale) * score, rtol=1e-9)
        mean = decay * mean + (1.0 - decay) * float(h / scale) if decay else 0.0
        assert abs(float(memory.mean) - mean) <= 1e-12


def test_baseline_stays_finite_where_the_outer_loss_has_no_gradient():
    case = make("linear-outer", "sgd", "sampled")
    case = case._replace(outer_batch={name: torch.zeros_like(value) for name, value in case.outer_batch.items()})
    estimator = first_order(baseline=0.9)
    feedback, memory = estimator.estimate(instance_of(case), estimator.init())
    assert torch.equal(feedback.grads[0], torch.zeros_like(case.thetas[0]))
    assert float(memory.mean) == 0.0


def test_argmax_labels_give_the_feedback_of_that_tuple():
    case = make("mlp", "momentum", "argmax")
    best = F.one_hot(case.thetas[0].argmax(dim=-1), 3).double()
    one, other = estimate(case, "first-order"), estimate(forced(case, [best]), "first-order")
    assert_close_tree(one.grads, other.grads, rtol=1e-12)


def test_per_example_credit_varies_less_than_one_scalar_for_the_batch():
    """Both are unbiased; the scalar also carries every other example's credit."""
    case = make("linear-outer", "sgd", "sampled", batch=4)
    mean, spread = expected_gradient(case)[0], {}
    for text in (SUM, "score"):
        found = [(chance, estimate(forced(case, targets), text).grads[0]) for targets, chance in draws(case)]
        spread[text] = sum(chance * ((one - mean) ** 2).sum() for chance, one in found)
    assert spread["score"] < 0.5 * spread[SUM]


def test_several_draws_are_averaged_and_the_state_is_that_of_the_first():
    """Each has a step and an outer loss of its own, and the baseline moves from one to the next."""
    case, drawn = make("mlp", "sgd", "sampled"), []
    apply, means = case.problem.targets.apply, 0.0

    def seen(theta, key):
        drawn.append(apply(theta, key))
        return drawn[-1]

    spied = case._replace(problem=case.problem._replace(targets=TargetTransform(seen, targets.SAMPLED.log_prob)))
    estimator = first_order(baseline=0.6, reduction="sum", draws=3)
    feedback, memory = estimator.estimate(instance_of(spied), estimator.init())
    assert len(drawn) == 3
    expected = torch.zeros_like(case.thetas[0])
    for target in drawn:
        h, scale = by_hand(case, target, 0.3)
        expected -= (h - means * scale) * (target - torch.softmax(case.thetas[0], dim=-1)) / 3.0
        means = 0.6 * means + 0.4 * float(h / scale)
    assert_close_tree(feedback.grads[0], expected, rtol=1e-9)
    assert abs(float(memory.mean) - means) <= 1e-12
    one = estimate(case, "first-order:baseline=0.6,reduction=sum")
    assert_close_tree(feedback._replace(grads=(), info={}), one._replace(grads=(), info={}), rtol=0)


def test_only_the_unbiased_variant_claims_to_be():
    claims = {(b, r): first_order(baseline=b, reduction=r).claim for b in (0.0, 0.9) for r in ("sum", "mean")}
    assert [options for options, claim in claims.items() if claim == "unbiased"] == [(0.0, "sum")]


def test_soft_labels_are_refused():
    with pytest.raises(ValueError, match="no log-probability"):
        estimate(make("mlp", "sgd", "soft"), "first-order")


@pytest.mark.parametrize(
    "wrong", [{"reduction": "max"}, {"baseline": 1.0}, {"baseline": -0.1}, {"baseline": float("nan")}, {"draws": 0}]
)
def test_bad_hyperparameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        first_order(**wrong)


def test_released_codes_soft_feedback_is_zero_where_the_exact_one_is_not():
    """CE(sg[softmax(z)], z), whose gradient the released code multiplies by h, does not depend on z to first order."""
    case = make("mlp", "sgd")
    z = (3.0 * case.thetas[0]).requires_grad_()
    (released,) = torch.autograd.grad(F.cross_entropy(z, torch.softmax(z, dim=-1).detach(), reduction="sum"), z)
    assert released.abs().max() <= 1e-15
    case = case._replace(thetas=[z.detach()])
    exact, expected = estimate(case, "exact").grads, finite_differences(lambda x: soft_outer(case, x), case.thetas)
    assert expected[0].norm() > 1e-3
    assert_same_gradient(exact, expected, norm_tol=1e-6, cosine_tol=1e-12)
