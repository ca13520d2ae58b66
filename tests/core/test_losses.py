"""Losses against torch's own and against loops written by hand."""

import math

import pytest
import torch
from asserts import assert_close_tree, assert_pure, assert_same_gradient, finite_differences
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.core import losses


def logits(seed=0, rows=6, classes=4):
    generator = torch.Generator().manual_seed(seed)
    return 3.0 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)


TARGETS = {"classes": torch.tensor([0, 3, 1, 1, 2, 0]), "distributions": torch.softmax(logits(1), dim=-1)}


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_cross_entropy_equals_torchs(targets, smoothing):
    found = assert_pure(losses.cross_entropy, logits(), targets, smoothing)
    expected = F.cross_entropy(logits(), targets, reduction="none", label_smoothing=smoothing)
    assert found.shape == (6,)
    assert_close_tree(found, expected, rtol=1e-14)
    ours = torch.func.grad(lambda x: losses.cross_entropy(x, targets, smoothing).mean())(logits())
    theirs = torch.func.grad(lambda x: F.cross_entropy(x, targets, label_smoothing=smoothing))(logits())
    assert_same_gradient(ours, theirs, norm_tol=1e-13, cosine_tol=1e-25)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_differentiable_in_soft_targets(smoothing):
    """∂/∂q_c = −(1 − a) log softmax(logits)_c."""
    found = torch.func.grad(lambda q: losses.cross_entropy(logits(), q, smoothing).sum())(TARGETS["distributions"])
    assert_close_tree(found, -(1.0 - smoothing) * torch.log_softmax(logits(), dim=-1), rtol=1e-14)


def test_cross_entropy_is_finite_for_huge_logits():
    extreme = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    assert_close_tree(losses.cross_entropy(extreme, torch.tensor([0, 0])), torch.tensor([0.0, 2e4]), rtol=0.0)


def uda_by_hand(weak, strong, temperature, threshold):
    values = []
    for w, s in zip(weak.tolist(), strong.tolist(), strict=True):
        sharp = [math.exp(x / temperature) for x in w]
        target = [x / sum(sharp) for x in sharp]
        log_total = math.log(sum(math.exp(x) for x in s))
        value = -sum(q * (x - log_total) for q, x in zip(target, s, strict=True))
        values.append(value if max(target) >= threshold else 0.0)
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.9])
def test_uda_equals_a_loop_by_hand(temperature, threshold):
    weak, strong = logits(2), logits(3)
    found = assert_pure(losses.uda, weak, strong, temperature, threshold)
    assert_close_tree(found, uda_by_hand(weak, strong, temperature, threshold), rtol=1e-13)


def test_uda_threshold_splits_this_batch():
    """Otherwise the test above would not see it."""
    dropped = losses.uda(logits(2), logits(3), 0.4, 0.9) == 0.0
    assert dropped.any()
    assert not dropped.all()


def test_uda_threshold_is_met_by_equality():
    even = torch.zeros(1, 4)
    assert_close_tree(losses.uda(even, even, 1.0, 0.25), torch.full((1,), math.log(4.0)), rtol=1e-6)


def test_uda_gives_no_gradient_to_the_weak_view():
    weak, strong = logits(2).requires_grad_(), logits(3).requires_grad_()
    loss = losses.uda(weak, strong, 0.5, 0.6).mean()
    to_weak, to_strong = torch.autograd.grad(loss, (weak, strong), allow_unused=True, materialize_grads=True)
    assert torch.equal(to_weak, torch.zeros_like(weak))
    expected = finite_differences(lambda x: uda_by_hand(logits(2), x, 0.5, 0.6).mean(), logits(3))
    assert_same_gradient(to_strong, expected, norm_tol=1e-8, cosine_tol=1e-16)
