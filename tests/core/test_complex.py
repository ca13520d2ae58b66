"""Complex numbers are pairs of real ones: gradients, unrolling and optimisers against the same with real numbers."""

import pytest
import torch
from asserts import assert_close_tree
from torch import nn

from metapl import estimators, optim
from metapl.core import autodiff, inside, losses, rng, targets, tree
from metapl.core.types import Instance, Problem, TrainState
from metapl.core.unrolling import METHODS, unroll
from metapl.nn import functional, microbatch

Z = torch.tensor([1.0 + 2.0j, 0.5 - 1.0j, -0.3 + 0.2j], dtype=torch.complex128)
TARGET = torch.tensor([0.2 - 0.1j, 1.0 + 0.5j, 0.0 + 1.0j], dtype=torch.complex128)


def test_the_inner_product_is_that_of_pairs():
    a, b = torch.view_as_real(Z), torch.view_as_real(TARGET)
    assert_close_tree(tree.dot([Z], [TARGET]), (a * b).sum(), rtol=1e-14)
    assert_close_tree(tree.norm({"z": Z, "x": torch.ones(2).double()}), (a.square().sum() + 2.0).sqrt(), rtol=1e-14)


def test_casts_and_averages_keep_them_complex():
    narrow = tree.to({"z": Z, "n": torch.tensor(3)}, torch.float32)
    assert (narrow["z"].dtype, narrow["n"].dtype) == (torch.complex64, torch.int64)
    assert_close_tree(
        torch.view_as_real(tree.lerp(Z, TARGET, 0.25)), torch.view_as_real(0.75 * Z + 0.25 * TARGET), 1e-14
    )


@pytest.mark.parametrize("transformed", [False, True])
def test_a_gradient_in_closed_form(transformed):
    """Of Σ |z|² it is 2 z, as torch counts it."""

    def grads(z):
        return autodiff.value_and_grad(lambda z: (z.abs().square().sum(), ()), z)[2]

    found = torch.vmap(grads)(Z[None])[0] if transformed else grads(Z)
    assert_close_tree(torch.view_as_real(found), torch.view_as_real(2.0 * Z), rtol=1e-14)


def loss(z, target, weight):
    return weight * ((z - target).abs() ** 3).sum() / 3.0


def real_loss(x, target, weight):
    return weight * ((x - target).square().sum(-1) ** 1.5).sum() / 3.0


def trained(loss, start, target, weights, method):
    def step(z, weight):
        return z - 0.1 * inside.gradient(loss, z, target, weight)[0]

    return unroll(step, start, weights, method=method)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "stopped"])
def test_unrolled_steps_are_those_of_pairs(method):
    """Derivatives in the start, in the target (an argument of the loss) and in real weights."""

    def outcome(complex_numbers):
        start, target = (v if complex_numbers else torch.view_as_real(v).clone() for v in (Z.clone(), TARGET.clone()))
        start.requires_grad_(), target.requires_grad_()
        weights = [torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in (0.5, 1.0, 2.0)]
        last = trained(loss if complex_numbers else real_loss, start, target, weights, method)
        flat = torch.view_as_real(last) if complex_numbers else last
        grads = torch.autograd.grad(
            (flat * torch.cos(torch.arange(6.0).reshape(3, 2))).sum(), [start, target, *weights]
        )
        return [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in (last, *grads)]

    found, expected = outcome(True), outcome(False)
    assert all(leaf.norm() > 0 for leaf in expected)
    assert_close_tree(found, expected, rtol=1e-10 if method != "difference" else 1e-3)


RULES = {
    "sgd": ({"momentum": 0.9, "weight_decay": 0.1}, torch.optim.SGD),
    "adam": ({"betas": (0.8, 0.9)}, torch.optim.Adam),
    "adamw": ({"weight_decay": 0.2, "amsgrad": True}, torch.optim.AdamW),
    "rmsprop": ({"momentum": 0.5}, torch.optim.RMSprop),
    "adagrad": ({}, torch.optim.Adagrad),
}


@pytest.mark.parametrize("name", RULES)
def test_optimisers_step_as_torchs(name):
    options, theirs = RULES[name]
    ours = optim.OPTIMIZERS[name](0.1, **options)
    params = {"z": Z.clone(), "x": torch.tensor([1.0, -1.0], dtype=torch.float64)}
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    rule, state = theirs(leaves.values(), 0.1, **options), ours.init(params)
    for _ in range(4):
        rule.zero_grad()
        (loss(leaves["z"], TARGET, 1.0) + leaves["x"].square().sum()).backward()
        rule.step()
        grads = autodiff.value_and_grad(lambda p: (loss(p["z"], TARGET, 1.0) + p["x"].square().sum(), ()), params)[2]
        updates, state = ours.update(grads, state, params)
        params = tree.add(params, updates)
    assert params["z"].is_complex()
    for key, value in params.items():
        assert_close_tree(*(torch.view_as_real(v) if v.is_complex() else v for v in (value, leaves[key])), rtol=1e-12)


class Waves(nn.Module):
    """A complex layer, a complex buffer and real logits."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.complex128))
        self.bias = nn.Parameter(torch.randn(3, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(4, dtype=torch.complex128))

    def forward(self, x):
        z = torch.fft.fft(x)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * z.detach().mean(0)
        return (z @ self.weight).abs() + self.bias


def given(steps):
    model = functional.from_module(Waves)
    params, buffers = model.init(rng.key(0))

    def inner(p, b, targets, x):
        logits, b = model.apply(p, b, x, train=True)
        return losses.cross_entropy(logits, targets), b

    def outer(p, b, outer_batch):
        return losses.cross_entropy(model.apply(p, b, outer_batch[0], train=True)[0], outer_batch[1]).mean()

    problem = Problem(inner, outer, optim.sgd(0.3, momentum=0.9), targets.SOFT)
    generator = torch.Generator().manual_seed(1)
    thetas = [torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(steps)]
    inner_batches = [torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(steps)]
    outer_batch = (torch.randn(6, 4, generator=generator, dtype=torch.float64), torch.arange(6) % 3)
    train_state = TrainState(params, buffers, problem.optimizer.init(params))
    return Instance(problem, thetas, train_state, inner_batches, outer_batch, rng.key(1))


ESTIMATORS = {
    "forward": (estimators.exact(route="forward"), 1),
    "reverse": (estimators.exact(route="reverse"), 1),
    "unroll": (estimators.unroll(), 2),
    "replay": (estimators.exact(), 2),
    "mixed": (estimators.exact(method="mixed"), 2),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_feedback_through_complex_parameters(name):
    """Against differences of the outer loss after plain steps."""
    estimator, steps = ESTIMATORS[name]
    instance = given(steps)
    thetas = instance.thetas

    def value(first):
        return estimators.none().estimate(instance._replace(thetas=[first, *thetas[1:]]), ())[0].outer

    feedback, _ = estimator.estimate(instance, ())
    along = torch.cos(thetas[0])
    slope = (value(thetas[0] + 1e-5 * along) - value(thetas[0] - 1e-5 * along)) / 2e-5
    assert_close_tree((feedback.grads[0] * along).sum(), slope, rtol=1e-6)
    assert feedback.scale > 0
    assert not feedback.scale.is_complex()


def test_complex_statistics_of_parts_are_averaged():
    model = functional.from_module(Waves)
    params, buffers = model.init(rng.key(0))
    x = torch.randn(6, 4, dtype=torch.float64)
    whole, parts = (
        one.apply(params, buffers, x, train=True)[1]["mean"] for one in (model, microbatch.in_parts(model, 2))
    )
    assert_close_tree(torch.view_as_real(parts), torch.view_as_real(whole), rtol=1e-12)
