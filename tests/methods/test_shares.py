"""The shares of the classes: what answers are shifted to, and when their own shares are believed."""

import numpy as np
import pytest
import torch

from metapl.core import rng
from metapl.methods.classical import shares

PRIOR = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
EVEN = torch.full((4,), 0.25, dtype=torch.float64)


def test_the_mean_is_what_is_wanted():
    logits = 3.0 * rng.normal(rng.key(4), (300, 3)).double()
    found = shares.shifted(logits, PRIOR)
    np.testing.assert_allclose(found.exp().mean(0), PRIOR, atol=1e-6)
    np.testing.assert_allclose(found.exp().sum(1), 1.0, atol=1e-12)
    by_example = (found - logits) - (found - logits)[:, :1]
    np.testing.assert_allclose(by_example.std(0), 0.0, atol=1e-9)  # one vector for all
    assert by_example[0].abs().max() > 0.1


@pytest.mark.parametrize(("size", "classes"), [(1.0, 3), (20.0, 10), (60.0, 10), (5.0, 40)])
def test_the_mean_is_there_however_sure_the_answers_are(size, classes):
    logits = size * rng.normal(rng.key(5), (500, classes), torch.float64)
    wanted = torch.softmax(rng.normal(rng.key(6), (classes,), torch.float64), 0)
    np.testing.assert_allclose(shares.shifted(logits, wanted).exp().mean(0), wanted, rtol=1e-8)


def answers(*counts):
    """Logits whose most likely classes are so frequent."""
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return torch.nn.functional.one_hot(y, len(counts)).double()


def test_shares_within_the_noise_stay_as_expected():
    # KL = 0.013 for 28 : 24 : 24 : 24 and so below 0.1
    assert torch.equal(shares.shrunk(answers(28, 24, 24, 24), EVEN, 1), EVEN)


def test_shares_beyond_the_noise_count_for_what_they_are_above_it():
    found = shares.shrunk(answers(70, 10, 10, 10), EVEN, 1)
    h = np.array([0.7, 0.1, 0.1, 0.1])
    weight = 1 - 0.1 / (h * np.log(h / 0.25)).sum()
    np.testing.assert_allclose(found, weight * h + (1 - weight) * 0.25, rtol=1e-12)
    assert 0.5 < found[0] < 0.7


def test_more_labels_make_less_noise():
    weights = [float(shares.shrunk(answers(40, 20, 20, 20), EVEN, labels)[0]) for labels in (1, 2, 4, 100)]
    assert weights[0] == 0.25
    assert weights == sorted(weights)
    assert weights[-1] == pytest.approx(0.4, abs=0.01)


def test_what_is_expected_may_be_uneven():
    expected = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)
    np.testing.assert_allclose(shares.shrunk(answers(68, 12, 10, 10), expected, 1), expected, rtol=1e-12)
    assert shares.shrunk(answers(25, 25, 25, 25), expected, 1)[0] < 0.5


def test_a_class_without_an_answer_keeps_a_share():
    found = shares.shrunk(answers(100, 0, 0, 0), EVEN, 1e9)
    assert found.min() == pytest.approx(shares.RARE, rel=1e-3)
    assert found.sum() == pytest.approx(1.0)
