"""Approximate claims that draw: evolution strategies, EvoGrad and Gumbel-softmax, against closed forms and limits."""

import itertools
import math

import pytest
import torch
from asserts import assert_close_tree, assert_same_gradient, relative_error
from problems import estimate, estimates, make, target_keys, targets_of
from quadratics import BATCH, ROWS, descended, felt, joined, normal, quadratic

from metapl import optim
from metapl.core import rng
from metapl.estimators import antithetic

KEYS = rng.fold_in(rng.key(21), torch.arange(200_000))


def assert_mean(found, expected, largest):
    """Within 4.5 standard errors number by number, and these at most `largest` of the length of what is expected."""
    error = found.std(dim=0) / len(found) ** 0.5
    assert error.max() <= largest * expected.norm(), f"too few draws: {error.max() / expected.norm():.2%}"
    off = ((found.mean(dim=0) - expected) / error).abs().max()
    assert off <= 4.5, f"biased: one number is {off:.1f} standard errors off"


# --- evolution ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.1, 0.8])
def test_antithetic_pairs_of_a_cubic(sigma):
    """The gradient of E[Σ a x³ + b x² + c x] is 3 a (x² + σ²) + 2 b x + c: the bias is 3 a σ², nothing for a = 0."""
    a, b, c, x = normal(1, 4), normal(2, 4), normal(3, 4), normal(4, 4)
    a[0] = 0.0
    at = {"one": x[:1], "rest": [x[1:]]}

    def fn(at):
        y = torch.cat([at["one"], *at["rest"]])
        return (a * y**3 + b * y**2 + c * y).sum()

    found = torch.vmap(lambda key: antithetic(fn, at, key, sigma=sigma, pairs=1))(KEYS)
    found = torch.cat([found["one"], *found["rest"]], dim=1)
    smooth = 3 * a * (x**2 + sigma**2) + 2 * b * x + c
    assert_mean(found, smooth, 0.008)
    for factor in (0.95, 1.05):
        with pytest.raises(AssertionError, match="biased"):
            assert_mean(factor * found, smooth, 0.008)
    if sigma > 0.5:
        with pytest.raises(AssertionError, match="biased"):
            assert_mean(found, smooth - 3 * a * sigma**2, 0.008)


def test_antithetic_pairs_of_a_quadratic_are_exact_along_their_noise():
    """(fn(x + σε) − fn(x − σε)) / 2σ = ⟨∇fn, ε⟩ whatever σ; `pairs` of them are averaged."""
    x, h = normal(1, 4), torch.diag(normal(2, 4))
    near, far = (antithetic(lambda y: y @ h @ y, x, rng.key(1), sigma=s, pairs=5) for s in (0.01, 3.0))
    assert_close_tree(near, far, rtol=1e-10)
    many = antithetic(lambda y: y @ h @ y, x, rng.key(1), sigma=1.0, pairs=2_000)
    assert relative_error(many, 2 * h @ x) <= 3 * math.sqrt(5 / 2_000)


@pytest.mark.parametrize("steps", [1, 3])
def test_evolution_has_no_bias_on_a_quadratic_outer_loss(steps):
    """Of parameters that are linear in θ; sigma is as large as they are."""
    case = quadratic([0.5, 0.9, 1.5, 2.2, 3.0], optim.sgd(0.2), steps=steps)
    step, v = torch.eye(5, dtype=torch.float64) - 0.2 * case.a, descended(case, 0.2) - case.outer_batch
    truth = felt(case, [0.2 * torch.matrix_power(step, steps - 1 - k) @ v for k in range(steps)])
    found = estimates(case, "evolution:sigma=1,pairs=2", 60_000)
    for one, other in zip(found, truth, strict=True):
        assert_mean(one, other, 0.03)
    assert_mean(torch.cat(found, 1), torch.cat(truth), 0.02)


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_evolution_is_the_gradient_of_the_smoothed_outer_loss(sigma):
    """Σ y³ smoothed: its gradient is 3 (y² + variance of y), with y = w′ − outer and w′ linear in θ."""
    case = quadratic([0.5, 0.9, 1.5, 2.2, 3.0], optim.sgd(0.5), outer_batch="cubic")
    y, spread = (
        descended(case, 0.5) - case.outer_batch,
        (0.5 * sigma / BATCH) ** 2 * (case.inner_batches[0] ** 2).sum((0, 1)),
    )
    (truth,), (sharp,) = felt(case, [0.5 * 3 * (y**2 + spread)]), felt(case, [0.5 * 3 * y**2])
    (found,) = estimates(case, f"evolution:sigma={sigma},pairs=1", 100_000)
    assert_mean(found, truth, 0.02)
    with pytest.raises(AssertionError, match="biased"):
        assert_mean(found, sharp, 0.02)


def test_antithetic_goes_through_a_teacher():
    """A network's parameters to θ to the outer loss: the chain rule says Jᵀ grads."""
    case = quadratic([0.5, 0.9, 1.5, 2.2, 3.0])
    view, teacher = normal(8, BATCH * ROWS, 4), {"w": normal(9, 4)}

    def taught(teacher):
        return case._replace(thetas=[(view @ teacher["w"]).tanh().reshape(BATCH, ROWS)])

    def fn(teacher):
        return 0.5 * ((descended(taught(teacher), 0.1) - case.outer_batch) ** 2).sum()

    def through(teacher):
        return estimate(taught(teacher), "none").outer

    found = torch.vmap(lambda key: antithetic(through, teacher, key, sigma=0.01, pairs=1)["w"])(KEYS[:60_000])
    (feedback,) = estimate(taught(teacher), "exact").grads
    slope = 1.0 - (view @ teacher["w"]).tanh() ** 2
    assert_mean(found, view.T @ (slope * feedback.flatten()), 0.01)
    assert_close_tree(through(teacher), fn(teacher), rtol=1e-12)


# --- evograd --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "children"), [(0.05, 2), (2.0, 6)])
def test_the_limit_of_evograd_is_a_step_of_plain_descent(temperature, children):
    """With the learning rate sigma² / temperature, whatever the rule of the real step.

    In this limit its feedback is linear in the covariance of the noise, so a mean over draws stands for many children.
    """
    sigma = 1e-3 * temperature
    case, plain = make("linear", "nesterov", batch=2), optim.sgd(sigma**2 / temperature)
    other = case._replace(
        problem=case.problem._replace(optimizer=plain),
        state=case.state._replace(opt_state=plain.init(case.state.params)),
    )
    text, expected = f"evograd:children={children},sigma={sigma},temperature={temperature}", estimate(other, "exact")
    (found,) = estimates(case, text, 100_000 // children)
    assert_mean(found, expected.grads[0], 0.025)
    for factor in (0.9, 1.1):
        with pytest.raises(AssertionError, match="biased"):
            assert_mean(factor * found, expected.grads[0], 0.025)
    one = estimate(case, text)
    assert abs(float(one.scale / expected.scale) - 1.0) <= 1e-3  # of plain descent, too
    assert_close_tree(one.state, estimate(case, "unroll").state, rtol=1e-12)


@pytest.mark.slow
def test_many_children_of_one_estimate():
    case, plain = quadratic([0.5, 0.9, 1.5, 2.2, 3.0]), optim.sgd(1e-4 / 0.5)
    problem = case.problem._replace(optimizer=plain)
    expected = estimate(case._replace(problem=problem), "exact").grads
    found = estimate(case, "evograd:children=6000,sigma=0.01,temperature=0.5").grads
    # The covariance of 3000 pairs of 5 numbers is off by √(5 / 3000) or so.
    assert_same_gradient(found, expected, norm_tol=0.1, cosine_tol=0.005)


def test_evograds_limit_is_of_second_order_in_sigma():
    """With the same noise: what it is divided by sigma² has a limit."""
    case = make("linear", "sgd", batch=2)

    def per_square(sigma):
        return estimate(case, f"evograd:children=40,sigma={sigma},temperature=0.5").grads[0] / sigma**2

    limit = per_square(1e-4)
    errors = [relative_error(per_square(sigma), limit) for sigma in (0.08, 0.04, 0.02)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(1.8 < order < 2.2 for order in orders), f"errors {errors}, orders {orders}"


def test_evograd_by_hand():
    """Two children, w ± σε: the weight of the one is σ(Δ / temperature) with Δ how much less it loses."""
    case = quadratic([0.5, 0.9, 1.5, 2.2, 3.0])
    sigma, temperature = 0.3, 0.7
    seen = []

    def inner(params, *rest):
        seen.append(joined(params).detach())
        return case.problem.inner(params, *rest)

    found = estimate(
        case._replace(problem=case.problem._replace(inner=inner)), f"evograd:children=2,sigma={sigma},temperature=0.7"
    )
    w = joined(case.state.params)
    above, below = [one for one in seen if not torch.equal(one, w)]
    assert_close_tree(above + below, 2 * w, rtol=1e-12)

    def stood(theta):
        pull = torch.einsum("ir,irs->s", theta, case.inner_batches[0]) / BATCH
        losses = torch.stack([0.5 * one @ case.a @ one - pull @ one for one in (above, below)])
        weight = torch.sigmoid((losses[1] - losses[0]) / temperature)
        return 0.5 * ((weight * above + (1 - weight) * below - case.outer_batch) ** 2).sum()

    assert_close_tree(found.grads[0], torch.func.grad(stood)(case.thetas[0]), rtol=1e-10)
    # ε is standard normal: over 200 pairs of 5 numbers, the mean square has an error of √(2 / 1000).
    seen.clear()
    estimate(case._replace(problem=case.problem._replace(inner=inner)), "evograd:children=400,sigma=0.3")
    noise = (torch.stack([one for one in seen if not torch.equal(one, w)]) - w) / 0.3
    assert len(noise) == 400
    assert abs(noise.square().mean() - 1.0) <= 4 * math.sqrt(2 / 1000)


# --- gumbel ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_bias_of_gumbel_falls_with_the_temperature():
    """Its mean over draws from that of exact feedback for the same labels, the expectation over labels."""
    case = make("mlp", "momentum", "sampled", batch=2)
    (exact,) = estimates(case, "exact", 100_000)
    errors, spreads = [], []
    for temperature in (2.0, 1.0, 0.5, 0.25):
        (found,) = estimates(case, f"gumbel:temperature={temperature}", 100_000)
        errors.append(relative_error(found.mean(dim=0), exact.mean(dim=0)))
        spreads.append(float(found.var(dim=0).sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 < errors[0]
    assert spreads == sorted(spreads)


@pytest.mark.parametrize("steps", [1, 3])
def test_gumbel_by_hand(steps):
    """The targets are the labels that the problem draws; the derivative is that of softmax((θ + G) / T)."""
    case = make("mlp", "nesterov", "sampled", steps=steps, batch=2)
    relaxed, hard = [], targets_of(case)
    for theta, key, target in zip(case.thetas, target_keys(case), hard, strict=True):
        noisy = theta + rng.gumbel(key, theta.shape, torch.float64)
        assert torch.equal(noisy.argmax(-1), target.argmax(-1))
        relaxed.append(noisy / 0.6)
    found = estimate(case, "gumbel:temperature=0.6")
    assert_close_tree(found.state, estimate(case, "none").state, rtol=1e-12)

    # The cotangents of the labels themselves are those of targets that are θ itself.
    labels = case.problem.targets._replace(apply=lambda theta, _key: theta)
    direct = case._replace(problem=case.problem._replace(targets=labels), thetas=hard)
    for one, noisy, to_labels in zip(found.grads, relaxed, estimate(direct, "unroll").grads, strict=True):
        p = torch.softmax(noisy, dim=-1)
        assert_close_tree(one, p * (to_labels - (p * to_labels).sum(-1, keepdim=True)) / 0.6, rtol=1e-9)
