"""Class weights and logit adjustment against their papers' formulas, and what they do to a loss and to a classifier."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.methods import base, imbalance

COUNTS = torch.tensor([100, 10, 1, 4])


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_effective_numbers(beta):
    """E_n = (1 − βⁿ) / (1 − β) is a sum of n powers of β; weights are one over it and sum to the classes."""
    numbers = np.array([sum(beta**power for power in range(count)) for count in COUNTS.tolist()])
    expected = 1 / numbers / (1 / numbers).sum() * len(COUNTS)
    np.testing.assert_allclose(imbalance.effective(COUNTS, beta=beta), expected, rtol=1e-9)


def test_limits_of_the_weights():
    assert imbalance.effective(COUNTS, beta=0.0).tolist() == [1.0] * 4
    nearly = imbalance.effective(COUNTS, beta=1 - 1e-9)
    np.testing.assert_allclose(nearly * COUNTS, [float(nearly[0]) * 100] * 4, rtol=1e-5)  # one over the number
    assert imbalance.effective(torch.tensor([7, 7, 7])).tolist() == pytest.approx([1.0] * 3)
    assert torch.isfinite(imbalance.effective(torch.tensor([0, 5]))).all()
    assert imbalance.none(COUNTS) is None
    with pytest.raises(ValueError, match=r"beta=1\.0 must be at least 0 and less than 1"):
        imbalance.effective(COUNTS, beta=1.0)


def test_the_adjustment_is_the_log_of_the_shares():
    np.testing.assert_allclose(imbalance.adjustment(COUNTS, 1.5), 1.5 * np.log(COUNTS.numpy() / 115), rtol=1e-12)
    assert imbalance.adjustment(COUNTS, 0.0) is None
    assert torch.isfinite(imbalance.adjustment(torch.tensor([0, 5]), 1.0)).all()


def test_the_supervised_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, 1, 3, 2, 0])
    plain = base.Recipe(smoothing=0.1)
    assert torch.equal(base.supervised_loss(plain, logits, y), base.losses.cross_entropy(logits, y, 0.1).mean())
    weights, shift = imbalance.effective(COUNTS), imbalance.adjustment(COUNTS, 0.7)
    found = base.supervised_loss(plain._replace(class_weights=weights, logit_shift=shift), logits, y)
    each = F.cross_entropy(logits + 0.7 * torch.log(COUNTS / 115.0), y, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(found, (each * weights[y]).mean(), rtol=1e-6, atol=0)
    halved = logits.float()
    assert (
        base.supervised_loss(plain._replace(class_weights=weights, logit_shift=shift), halved, y).dtype == halved.dtype
    )


def test_an_adjusted_classifier_is_the_one_of_equal_classes():
    """Of a feature that is N(0, 1) in class 0 and N(2, 1) in class 1, nine to one, the best logit is 2 x − 2 − log 9.

    Trained with the shift it is 2 x − 2, whose border is in the middle.
    """
    grid = torch.linspace(-6, 8, 2001, dtype=torch.float64)
    density = torch.stack([0.9 * torch.exp(-(grid**2) / 2), 0.1 * torch.exp(-((grid - 2) ** 2) / 2)])
    shift = imbalance.adjustment(torch.tensor([9, 1]), 1.0)
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def closure():
        solver.zero_grad()
        logits = torch.stack([torch.zeros_like(grid), line[0] * grid + line[1]], dim=-1) + shift
        total = -(density.T * torch.log_softmax(logits, -1)).sum() / density.sum()
        total.backward()
        return total

    solver.step(closure)
    assert line.tolist() == pytest.approx([2.0, -2.0], abs=1e-3)
    assert float(shift[1] - shift[0]) == pytest.approx(math.log(1 / 9))
