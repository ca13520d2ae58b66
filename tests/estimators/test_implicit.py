"""Implicit differentiation of quadratic inner losses, where it has a closed form."""

import pytest
import torch
from asserts import assert_close_tree, relative_error
from by_torch import run_torch
from problems import estimate, make, targets_of
from quadratics import SIZE, descended, felt, joined, normal, optimum, parted, pulls, quadratic
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import optim
from metapl.estimators.implicit import SOLVERS

CURVATURES = [0.5, 0.9, 1.5, 2.2, 3.0]


def expected(case, w, damping=0.0):
    """x_i (A + damping)⁻¹ (w − outer) / (batch · steps)."""
    q = torch.linalg.solve(case.a + damping * torch.eye(SIZE, dtype=torch.float64), w - case.outer_batch)
    return felt(case, [q / len(case.thetas)] * len(case.thetas)), q


def cg(iterations, damping):
    return f"implicit:solver=cg,iterations={iterations},damping={damping}"


def neumann(iterations, rate, damping=0.0):
    return f"implicit:solver=neumann,iterations={iterations},rate={rate},damping={damping}"


def fixed_point(iterations):
    return f"implicit:solver=fixed-point,iterations={iterations}"


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_conjugate_gradients_end_after_as_many_iterations_as_parameters(damping):
    case = optimum(quadratic(CURVATURES))
    truth, _ = expected(case, joined(case.state.params), damping)
    errors = [relative_error(estimate(case, cg(n, damping)).grads, truth) for n in range(1, SIZE + 1)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-2] > 1e-4
    assert errors[-1] <= 1e-10


def assert_implicit(case, text, damping):
    """At the parameters after the steps, with the Hessian of the mean over steps, wherever that is."""
    feedback = estimate(case, text)
    w = descended(case, 0.1)
    truth, q = expected(case, w, damping)
    assert_close_tree(joined(feedback.state.params), w, rtol=1e-12)
    assert_close_tree(feedback.grads, tuple(truth), rtol=1e-10)
    gradient = case.a @ w - pulls(case).mean(dim=0)
    assert_close_tree(feedback.scale, q.norm() * gradient.norm(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("iterations", [SIZE, 3 * SIZE])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("at", [optimum, lambda case: case])
def test_conjugate_gradients(at, steps, iterations):
    """More iterations than parameters change nothing. Away from the optimum the steps move the parameters."""
    assert_implicit(at(quadratic(CURVATURES, steps=steps)), cg(iterations, 0.3), 0.3)


def test_a_network_with_sampled_labels():
    """The Hessian of the cross entropy of two steps, by autograd, and solved as a matrix."""
    case = make("linear", "adamw", "sampled", steps=2, batch=3)
    targets = targets_of(case)
    _, module, _ = run_torch(case, targets)
    thetas = [theta.clone().requires_grad_() for theta in case.thetas]
    weight, bias = (parameter.detach().clone().requires_grad_() for parameter in module.parameters())

    def loss(weight, bias):
        expected = [torch.softmax(theta, dim=-1) for theta in thetas]  # which the loss is linear in
        given = [target + soft - soft.detach() for target, soft in zip(targets, expected, strict=True)]
        return sum(F.cross_entropy(x @ weight.T + bias, y) for x, y in zip(case.inner_batches, given, strict=True)) / 2

    (h11, h12), (h21, h22) = torch.autograd.functional.hessian(loss, (weight, bias))
    n, m = weight.numel(), bias.numel()
    hessian = torch.cat([torch.cat([h11.reshape(n, n), h12.reshape(n, m)], 1), torch.cat([h21.reshape(m, n), h22], 1)])
    x, y = case.outer_batch
    v = torch.autograd.grad(F.cross_entropy(x @ weight.T + bias, y), (weight, bias))
    v = torch.cat([one.flatten() for one in v])
    q = torch.linalg.solve(hessian + 0.5 * torch.eye(n + m, dtype=torch.float64), v)
    g = torch.autograd.grad(loss(weight, bias), (weight, bias), create_graph=True)
    truth = torch.autograd.grad(-(torch.cat([one.flatten() for one in g]) @ q), thetas)
    assert_close_tree(estimate(case, cg(40, 0.5)).grads, truth, rtol=1e-9)


@pytest.mark.parametrize("iterations", [1, 2, 6])
def test_neumann_is_gradient_descent_at_the_optimum(iterations):
    """As many steps with one θ, none of which moves the parameters; their gradients add up."""
    case = optimum(quadratic(CURVATURES, optim.sgd(0.25), shared=True))
    several = optimum(quadratic(CURVATURES, optim.sgd(0.25), steps=iterations, shared=True))
    found = estimate(case, neumann(iterations, 0.25)).grads[0]
    for text in ("unroll", f"truncated:steps={iterations}"):
        assert_close_tree(found, sum(estimate(several, text).grads), rtol=1e-12)
    powers = [torch.matrix_power(torch.eye(SIZE, dtype=torch.float64) - 0.25 * case.a, n) for n in range(iterations)]
    q = 0.25 * sum(powers) @ (joined(case.state.params) - case.outer_batch)
    assert_close_tree(found, felt(case, [q])[0], rtol=1e-12)
    # Truncation keeps the last steps of a longer way.
    longer = optimum(quadratic(CURVATURES, optim.sgd(0.25), steps=8, shared=True))
    assert_close_tree(found, sum(estimate(longer, f"truncated:steps={iterations}").grads), rtol=1e-12)


@pytest.mark.parametrize("damping", [0.4, 2.0])
def test_neumann_with_damping(damping):
    case = optimum(quadratic(CURVATURES))
    truth, _ = expected(case, joined(case.state.params), damping)
    assert_close_tree(estimate(case, neumann(300, 0.3, damping)).grads, tuple(truth), rtol=1e-10)
    assert relative_error(estimate(case, neumann(3, 0.3, damping)).grads, truth) > 1e-3


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_fixed_point_of_plain_descent_is_neumann(iterations):
    case = quadratic(CURVATURES, optim.sgd(0.2), steps=2)
    one, other = estimate(case, fixed_point(iterations)), estimate(case, neumann(iterations, 0.2))
    assert_close_tree(one, other, rtol=1e-12)


RULES = {
    "momentum": optim.sgd(0.2, momentum=0.9),
    "nesterov": optim.sgd(0.2, momentum=0.9, nesterov=True),
    "adam": optim.adam(0.1, betas=(0.5, 0.9)),
    "clipped": optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(0.2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_fixed_point_of_any_rule_has_the_same_limit(name):
    """At the optimum, which does not depend on how the parameters got there."""
    case = optimum(quadratic(CURVATURES, RULES[name]))
    if name == "adam":  # as after many steps: no mean, and squares that differ from number to number
        state = case.state.opt_state._replace(step=torch.tensor(50), square=parted(normal(4, SIZE) ** 2 + 0.1))
        case = case._replace(state=case.state._replace(opt_state=state))
    w = joined(case.state.params)
    feedback = estimate(case, fixed_point(1500))
    assert_close_tree(joined(feedback.state.params), w, rtol=1e-12)
    assert_close_tree(feedback.grads, tuple(expected(case, w)[0]), rtol=1e-8)


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_fixed_point_takes_weight_decay_along(iterations):
    """Φ(w) = w − lr (A w − pull + decay w): the update depends on the parameters directly, too."""
    case = quadratic(CURVATURES, optim.sgd(0.2, weight_decay=0.5))
    one = estimate(case, fixed_point(iterations))
    assert_close_tree(one.grads, estimate(case, neumann(iterations, 0.2, 0.5)).grads, rtol=1e-12)


@pytest.mark.parametrize("text", [cg(20, 0.0), cg(20, 1.0), neumann(20, 0.1), fixed_point(20)])
def test_indefinite_curvature_and_no_gradient_stay_finite(text):
    for curvatures in ([-1.0, -0.5, 0.5, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0, 1.0], [-1.0, 1.0, -1.0, 1.0, 0.0]):
        assert all(theta.isfinite().all() for theta in estimate(quadratic(curvatures, steps=2), text).grads)
    case = quadratic(CURVATURES)
    feedback = estimate(case._replace(outer_batch=descended(case, 0.1)), text)
    assert feedback.grads[0].abs().max() <= 1e-14
    assert feedback.grads[0].isfinite().all()
    nothing = make("linear-outer", "sgd", steps=2)
    nothing = nothing._replace(
        outer_batch={name: torch.zeros_like(value) for name, value in nothing.outer_batch.items()}
    )
    feedback = estimate(nothing, text)
    assert all(torch.equal(theta, torch.zeros_like(theta)) for theta in feedback.grads)
    assert feedback.scale == 0


@pytest.mark.parametrize("curvature", [-1.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("iterations", [1, 2])
def test_conjugate_gradients_of_one_curvature_take_one_step(iterations, curvature):
    """To the last bit, whatever the curvature along the step is: one of exactly 1 is no special case."""
    v = {"w": torch.tensor([1.0, 0.0], dtype=torch.float64)}
    q = SOLVERS["cg"](lambda one: {"w": curvature * one["w"]}, v, iterations, 0.1)
    assert torch.equal(q["w"], v["w"] / curvature)


def test_a_direction_without_curvature_is_not_taken():
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    q = SOLVERS["cg"](lambda one: {"w": signs * one["w"]}, {"w": torch.ones(2, dtype=torch.float64)}, 1, 0.1)
    assert torch.equal(q["w"], torch.zeros(2, dtype=torch.float64))
