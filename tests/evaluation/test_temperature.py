"""The temperature against scipy, and what it does to calibration."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from metapl.evaluation import metrics, temperature


def drawn(count, sharpness, classes=4, seed=0):
    """Logits that are `sharpness` times those from which the classes were drawn."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=1.5, size=(count, classes))
    powers = np.exp(logits)
    y = [generator.choice(classes, p=one / one.sum()) for one in powers]
    return torch.from_numpy(sharpness * logits), torch.tensor(y)


@pytest.mark.parametrize(("count", "sharpness"), [(2000, 3.0), (2000, 0.4), (30, 2.0), (1, 1.0)])
def test_it_is_the_minimum_that_scipy_finds(count, sharpness):
    logits, y = drawn(count, sharpness)

    def objective(log_t):
        said = log_softmax(logits.numpy() / np.exp(log_t), axis=1)
        return -said[range(count), y.numpy()].sum() + log_t**2 / 2

    found = minimize_scalar(objective, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    assert np.log(temperature.fit(logits, y)) == pytest.approx(found.x, abs=1e-6)


def test_many_examples_give_the_sharpness_back():
    assert temperature.fit(*drawn(20_000, 2.5)) == pytest.approx(2.5, rel=0.05)


def test_no_examples_and_few_that_are_right_stay_near_1():
    assert temperature.fit(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) == pytest.approx(1.0, abs=1e-6)
    logits = 5 * torch.eye(3)
    assert 0.3 < temperature.fit(logits, torch.arange(3)) < 1.0


def test_predictions_stay_and_the_test_is_better_calibrated():
    validation, test = drawn(500, 3.0, seed=1), drawn(2000, 3.0, seed=2)
    found = temperature.calibrated(validation, test)
    assert found["temperature"] == temperature.fit(*validation)
    assert found["ece"] < metrics.ece(*test) / 3
    assert found["ece"] == metrics.ece(test[0] / found["temperature"], test[1])
    assert found["nll"] < metrics.nll(*test)
    assert torch.equal((test[0] / found["temperature"]).argmax(1), test[0].argmax(1))


def test_logits_of_float32_and_extreme_ones():
    logits = torch.tensor([[1e4, 0.0], [0.0, 1e4]])
    assert np.isfinite(temperature.fit(logits, torch.tensor([1, 0])))
