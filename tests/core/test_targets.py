"""Soft, sampled and argmax labels: their values, their frequencies, and the one derivative that they share."""

import math

import pytest
import torch
from asserts import assert_close_tree, assert_pure, finite_differences

from metapl.core import rng, targets
from metapl.core.targets import ARGMAX, SAMPLED, SOFT, TARGETS


def theta(rows=5, classes=4):
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_soft_targets_are_the_distribution():
    z = theta()
    expected = z.exp() / z.exp().sum(dim=-1, keepdim=True)
    assert_close_tree(assert_pure(SOFT.apply, z, rng.key(0)), expected, rtol=1e-15)


def test_argmax_targets_are_one_hot_at_the_largest():
    targets = assert_pure(ARGMAX.apply, theta(), rng.key(0))
    expected = torch.zeros_like(targets)
    for row, values in enumerate(theta().tolist()):
        expected[row, values.index(max(values))] = 1.0
    assert torch.equal(targets, expected)


def test_sampled_targets_are_one_hot_and_follow_the_key():
    targets = assert_pure(SAMPLED.apply, theta(), rng.key(0))
    assert torch.equal(targets.sum(dim=-1), torch.ones(5, dtype=torch.float64))
    assert set(targets.unique().tolist()) == {0.0, 1.0}
    draws = {tuple(SAMPLED.apply(theta(), rng.key(seed)).argmax(dim=-1).tolist()) for seed in range(20)}
    assert len(draws) > 10


def test_sampled_frequencies_are_the_softmax():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    count = 40_000
    frequencies = SAMPLED.apply(p.log().expand(count, 4), rng.key(1)).mean(dim=0)
    for found, expected in zip(frequencies.tolist(), p.tolist(), strict=True):
        assert abs(found - expected) <= 5.0 * math.sqrt(expected * (1.0 - expected) / count)


def test_rows_are_drawn_independently():
    pairs = SAMPLED.apply(torch.zeros(20_000, 2, 2), rng.key(2)).argmax(dim=-1)
    agree = float((pairs[:, 0] == pairs[:, 1]).double().mean())
    assert abs(agree - 0.5) <= 5.0 * 0.5 / math.sqrt(20_000)


@pytest.mark.parametrize("name", TARGETS)
def test_derivative_is_that_of_the_expectation(name):
    """Σ weight · apply(θ) has the derivative of Σ weight · softmax(θ): p ∘ (w − ⟨p, w⟩)."""
    weight = torch.arange(20.0, dtype=torch.float64).reshape(5, 4).sin()
    found = torch.func.grad(lambda z: (weight * TARGETS[name].apply(z, rng.key(0))).sum())(theta())
    p = torch.softmax(theta(), dim=-1)
    by_hand = p * (weight - (p * weight).sum(dim=-1, keepdim=True))
    assert_close_tree(found, by_hand, rtol=1e-13)
    numeric = finite_differences(lambda z: (weight * torch.softmax(z, dim=-1)).sum(), theta())
    assert_close_tree(found, numeric, rtol=1e-8)


@pytest.mark.parametrize("transform", [SAMPLED, ARGMAX])
def test_log_prob_is_that_of_the_class_drawn(transform):
    targets = transform.apply(theta(), rng.key(3))
    found = assert_pure(transform.log_prob, theta(), targets)
    rows = zip(theta().tolist(), targets.argmax(dim=-1).tolist(), strict=True)
    expected = [row[chosen] - math.log(sum(math.exp(value) for value in row)) for row, chosen in rows]
    assert_close_tree(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-14)


def test_gradient_of_log_prob_is_the_score_even_for_targets_in_a_graph():
    """∇ log p(y) = y − p; the targets count as data, although `teach` is differentiable."""
    z = theta().requires_grad_()
    targets = SAMPLED.apply(z, rng.key(3))
    (score,) = torch.autograd.grad(SAMPLED.log_prob(z, targets).sum(), z)
    assert_close_tree(score, targets.detach() - torch.softmax(theta(), dim=-1), rtol=1e-14)


def test_soft_labels_have_no_log_probability():
    assert targets.SOFT.log_prob is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TARGETS)
def test_targets_keep_the_dtype_of_theta(name, dtype):
    assert TARGETS[name].apply(theta().to(dtype), rng.key(0)).dtype == dtype


def test_classes_are_the_last_dimension_whatever_comes_before():
    """Of one example, and of a batch of sequences."""

    def total(z, weight, transform):
        return (weight * transform.apply(z, rng.key(0))).sum()

    for z in (theta()[0], torch.stack([theta(3), 2.0 * theta(3)])):
        p = z.exp() / z.exp().sum(dim=-1, keepdim=True)
        weight = torch.arange(float(z.numel()), dtype=torch.float64).reshape(z.shape).cos()
        slope = p * (weight - (p * weight).sum(dim=-1, keepdim=True))
        assert_close_tree(SOFT.apply(z, rng.key(0)), p, rtol=1e-14)
        assert torch.equal(ARGMAX.apply(z, rng.key(0)), (z == z.amax(dim=-1, keepdim=True)).double())
        for transform in TARGETS.values():
            assert_close_tree(torch.func.grad(total)(z, weight, transform), slope, rtol=1e-13)
        for transform in (SAMPLED, ARGMAX):
            targets = transform.apply(z, rng.key(0))
            assert torch.equal(targets.sum(dim=-1), torch.ones(z.shape[:-1], dtype=torch.float64))
            assert_close_tree(transform.log_prob(z, targets), p.log()[targets.bool()].reshape(z.shape[:-1]), rtol=1e-14)


@pytest.mark.parametrize("name", TARGETS)
def test_targets_stay_on_the_device_of_theta(name):
    """Of the meta device, which every machine has."""
    targets = TARGETS[name].apply(theta().to("meta"), rng.key(0))
    assert (targets.device.type, targets.shape) == ("meta", (5, 4))
