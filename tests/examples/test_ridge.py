"""The three routes of examples/ridge.py against the singular value decomposition, in closed form."""

import numpy as np
import pytest
import ridge
import torch
from asserts import relative_error
from sklearn.linear_model import Ridge


def by_svd(theta, fit, held_out):
    """Value and derivative by numpy: w = Σ s / (s² + n λ) ⟨u, y⟩ v, whose derivative in λ is that of its factors."""
    x, y, held_x, held_y = (tensor.numpy() for tensor in (*fit, *held_out))
    u, s, v = np.linalg.svd(x, full_matrices=False)
    shrunk = s**2 + len(y) * np.exp(theta)
    w = v.T @ (s / shrunk * (u.T @ y))
    slope = v.T @ (-len(y) * np.exp(theta) * s / shrunk**2 * (u.T @ y))
    residual = held_x @ w - held_y
    return 0.5 * np.mean(residual**2), (held_x @ slope) @ residual / len(held_y)


@pytest.mark.parametrize("route", [ridge.closed_form, ridge.implicit, ridge.unrolled])
@pytest.mark.parametrize("theta", [0.0, -1.5])
def test_every_route_gives_the_hypergradient(route, theta):
    fit, held_out = ridge.data()
    value, gradient = route(torch.tensor(theta, dtype=torch.float64), fit, held_out)
    expected_value, expected = by_svd(theta, fit, held_out)
    assert relative_error(value, torch.tensor(expected_value)) < 1e-12
    assert relative_error(gradient, torch.tensor(expected)) < 1e-10


def test_the_solution_is_that_of_scikit_learn():
    (x, y), _ = ridge.data()
    expected = Ridge(alpha=len(y) * np.exp(-2.0), fit_intercept=False).fit(x.numpy(), y.numpy()).coef_
    _, w = ridge.solve(torch.tensor(-2.0, dtype=torch.float64), (x, y))
    assert relative_error(w, torch.tensor(expected)) < 1e-12


def test_the_program_finds_the_penalty_of_a_grid(capsys):
    ridge.main()
    found = float(capsys.readouterr().out.split()[-1])
    fit, held_out = ridge.data()
    assert found <= min(by_svd(theta, fit, held_out)[0] for theta in np.linspace(-8, 4, 49)) + 1e-6
