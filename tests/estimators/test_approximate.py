"""Approximate claims, each held to its order; `none` and the released sign of `taylor` to what they are."""

import pytest
import torch
from asserts import assert_close_tree, relative_error, richardson
from by_torch import gradients_of, inner_product, loss_torch, outer_torch, run_torch, soft_outer
from problems import build, estimate, make, sgd, targets_of
from quadratics import SIZE, descended, felt, quadratic
from truths import differences, expected_feedback, expected_gradient

from metapl import optim
from metapl.estimators import ESTIMATORS

APPROXIMATE = [
    "difference",
    "evograd",
    "evolution",
    "first-order",
    "gumbel",
    "implicit",
    "sama",
    "taylor",
    "truncated",
    "unadapted",
]


def test_every_approximate_claim_is_known():
    """Here, in test_stochastic.py, test_implicit.py or test_first_order.py."""
    assert sorted(name for name, made in ESTIMATORS.items() if made().claim == "approximate") == APPROXIMATE


def assert_order(errors, order, within=0.15):
    """Of errors at parameters that halve from one to the next."""
    errors = torch.tensor(errors)
    found = torch.log2(errors[:-1] / errors[1:])
    assert (found - order).abs().max() <= within, f"errors {errors}, orders {found}"
    assert errors[-1] > 1e-9, "no error at all tests nothing"


# --- taylor ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("rule", ["nesterov", "adamw", "clipped", "rmsprop"])
def test_taylor_is_the_gradient_of_the_expected_outer_loss(rule, steps):
    case = make("mlp", rule, "sampled", steps=steps, batch=4 - steps)
    assert_close_tree(expected_feedback(case, "taylor"), expected_gradient(case), rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 3])
def test_taylor_by_hand(steps):
    """−h (y − p), h from two outer losses with the same statistics: else h would hold what these do to it."""
    case = make("batchnorm-eval", "adamw", "sampled", steps=steps, batch=2)
    targets = targets_of(case)
    after, module, _ = run_torch(case, targets)
    module.load_state_dict(case.state.params, strict=False)
    rise = after - outer_torch(case, module).detach()
    truth = [rise * (y - torch.softmax(theta, dim=-1)) for y, theta in zip(targets, case.thetas, strict=True)]
    found = estimate(case, "taylor")
    assert_close_tree(found.grads, tuple(truth), rtol=1e-9)
    assert_close_tree(found.info["slope"], rise, rtol=1e-9)


def test_taylors_distance_from_exact_shrinks_with_the_learning_rate():
    """Of its expectation over labels from the outer loss at the expected parameters; with the same sign."""
    errors = []
    for lr in (0.08, 0.04, 0.02):
        case = make("mlp", sgd(lr), "sampled", warm=False, batch=3)
        exact, _ = richardson(lambda thetas: soft_outer(case, thetas), case.thetas, width=0.05, levels=3)  # noqa: B023
        errors.append(relative_error(expected_feedback(case, "taylor"), exact))
    assert_order(errors, 1)
    assert errors[-1] < 0.1


@pytest.mark.parametrize("steps", [1, 3])
def test_the_released_sign_is_the_opposite_bit_for_bit(steps):
    case = make("batchnorm", "adamw", "sampled", steps=steps)
    paper, released = estimate(case, "taylor"), estimate(case, "taylor:sign=released")
    assert build("taylor:sign=released").claim == "wrong"
    assert all(torch.equal(a, -b) for a, b in zip(paper.grads, released.grads, strict=True))
    assert_close_tree(paper._replace(grads=()), released._replace(grads=()), rtol=0)


# --- difference and sama --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rule", ["nesterov", "adamw"])
@pytest.mark.parametrize("network", ["mlp", "batchnorm"])
def test_the_error_of_difference_shrinks_with_the_square_of_its_radius(network, rule, steps):
    case, truth = make(network, rule, steps=steps, batch=2), differences(network, rule, steps)
    assert_order([relative_error(estimate(case, f"difference:radius={r}").grads, truth) for r in (0.1, 0.05, 0.025)], 2)
    assert relative_error(estimate(case, "difference:radius=1e-4").grads, truth) <= 1e-6


def test_the_error_of_sama_shrinks_with_the_learning_rate():
    errors = []
    for lr in (0.08, 0.04, 0.02):
        case = make("mlp", sgd(lr), warm=False, batch=2)
        errors.append(relative_error(estimate(case, "sama:radius=1e-3").grads, estimate(case, "unroll").grads))
    assert_order(errors, 1)


@pytest.mark.parametrize("labels", ["soft", "sampled"])
@pytest.mark.parametrize("steps", [1, 3])
def test_sama_by_hand(steps, labels):
    """∂⟨u, ∇ loss_k⟩ / ∂θ_k at the parameters after all steps, with u = −lr v, for every step."""
    case = make("mlp", "momentum", labels, steps=steps, batch=2)
    targets = targets_of(case)
    _, module, _ = run_torch(case, targets)
    parameters = list(module.parameters())
    v = torch.autograd.grad(outer_torch(case, module), parameters)
    truth = []
    for given, target, x in zip(case.thetas, targets, case.inner_batches, strict=True):
        theta = given.clone().requires_grad_()
        soft = torch.softmax(theta, dim=-1)  # the loss is linear in its targets
        loss = loss_torch(case, module, x, target + soft - soft.detach())
        g = torch.autograd.grad(loss, parameters, create_graph=True)
        truth.append(torch.autograd.grad(-0.2 * sum((a * b).sum() for a, b in zip(v, g, strict=True)), theta)[0])
    found = estimate(case, "sama:radius=1e-3")
    assert_close_tree(found.grads, tuple(truth), rtol=1e-5)
    _, earlier, _ = run_torch(case._replace(inner_batches=case.inner_batches[:-1]), targets[:-1])
    last = gradients_of(loss_torch(case, earlier, case.inner_batches[-1], targets[-1]), earlier)
    length = sum((one**2).sum() for one in v).sqrt() * inner_product(last, last).sqrt()
    assert_close_tree(found.scale, steps * 0.2 * length, rtol=1e-9)


# --- truncated ------------------------------------------------------------------------------------------------------


def test_truncation_of_a_quadratic_in_closed_form():
    """lr x_k (1 − lr A)^(steps − 1 − k) v / batch for the steps that are kept, nothing for the others."""
    case = quadratic([0.5, 0.9, 1.5, 2.2, 3.0], optim.sgd(0.2), steps=8)
    contraction = torch.eye(SIZE, dtype=torch.float64) - 0.2 * case.a
    v = descended(case, 0.2) - case.outer_batch
    full = felt(case, [0.2 * torch.matrix_power(contraction, 7 - k) @ v for k in range(8)])
    for kept in range(1, 11):
        found = estimate(case, f"truncated:steps={kept}").grads
        left_out = max(0, 8 - kept)
        assert all(torch.equal(theta, torch.zeros_like(theta)) for theta in found[:left_out])
        assert_close_tree(found[left_out:], tuple(full[left_out:]), rtol=1e-12)


def test_the_error_of_truncation_decays_geometrically():
    """With the curvature c in all directions, and one batch for all steps, by 1 − lr c for every step kept."""
    case = quadratic([1.5] * SIZE, optim.sgd(0.2), steps=8, shared=True)
    whole = estimate(case, "unroll").grads
    for kept in range(9):
        found = estimate(case, f"truncated:steps={kept}").grads if kept else [torch.zeros_like(x) for x in whole]
        rest = (1 - 0.7 ** (2 * (8 - kept))) / (1 - 0.7**16)
        assert abs(relative_error(found, whole) - 0.7**kept * rest**0.5) <= 1e-12


@pytest.mark.parametrize("rule", ["nesterov", "adamw"])
@pytest.mark.parametrize("kept", [1, 2])
def test_truncation_of_a_network(kept, rule):
    """What is kept is what exact has from the state that starts there."""
    case = make("mlp", rule, steps=3, batch=2)
    found, whole = estimate(case, f"truncated:steps={kept}"), differences("mlp", rule, 3)
    assert_close_tree(list(found.grads[-kept:]), whole[-kept:], rtol=1e-8)
    assert not any(theta.any() for theta in found.grads[:-kept])
    before = estimate(case._replace(thetas=case.thetas[:-kept], inner_batches=case.inner_batches[:-kept]), "none").state
    rest = case._replace(thetas=case.thetas[-kept:], inner_batches=case.inner_batches[-kept:], state=before)
    assert_close_tree(found.scale, estimate(rest, "unroll").scale, rtol=1e-11)


# --- unadapted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["soft", "sampled"])
@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov"])
def test_sgd_is_not_adapted(rule, labels):
    """So that there is nothing to leave out, neither in the feedback nor in its scale."""
    case = make("batchnorm", rule, labels)
    assert_close_tree(estimate(case, "unadapted"), estimate(case, "exact"), rtol=1e-11)


@pytest.mark.parametrize("labels", ["soft", "sampled"])
@pytest.mark.parametrize("rule", ["adamw", "rmsprop", "clipped"])
def test_unadapted_by_hand(rule, labels):
    """∂⟨−(|u|/|v|) v, ∇ loss⟩ / ∂θ at the old parameters; the step taken is the true one."""
    case = make("mlp", rule, labels)
    exact, found = estimate(case, "exact"), estimate(case, "unadapted")
    assert_close_tree(found._replace(grads=(), info={}), exact._replace(grads=(), info={}), rtol=1e-11)
    targets = targets_of(case)
    _, after, _ = run_torch(case, targets)
    v = torch.autograd.grad(outer_torch(case, after), list(after.parameters()))
    _, before, _ = run_torch(case._replace(thetas=[], inner_batches=[]), [])
    theta = case.thetas[0].clone().requires_grad_()
    soft = torch.softmax(theta, dim=-1)  # the loss is linear in its targets
    loss = loss_torch(case, before, case.inner_batches[0], targets[0] + soft - soft.detach())
    g = torch.autograd.grad(loss, list(before.parameters()), create_graph=True)
    inner = torch.sqrt(sum((one**2).sum() for one in g)).detach()
    length = exact.scale / inner / torch.sqrt(sum((one**2).sum() for one in v))
    (truth,) = torch.autograd.grad(-length * sum((a * b).sum() for a, b in zip(v, g, strict=True)), theta)
    assert_close_tree(found.grads, (truth,), rtol=1e-9)
    assert relative_error(found.grads, exact.grads) > 0.01


def test_unadapted_feedback_about_a_perfect_outer_loss_is_zero():
    case = make("mlp", "adamw")
    perfect = case._replace(
        problem=case.problem._replace(outer=lambda params, *_: 0.0 * sum(x.sum() for x in params.values()))
    )
    assert not any(theta.any() for theta in estimate(perfect, "unadapted").grads)


# --- none -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3])
def test_none_gives_zeros_and_still_learns(steps):
    case = make("batchnorm", "adamw", steps=steps)
    feedback = estimate(case, "none")
    assert build("none").claim == "zero"
    assert all(torch.equal(a, torch.zeros_like(b)) for a, b in zip(feedback.grads, case.thetas, strict=True))
    assert feedback.scale == 1
    assert_close_tree(feedback.outer, soft_outer(case, case.thetas), rtol=1e-12)
