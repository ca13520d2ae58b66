"""Poisson learning against a dense solution of the graph's Laplacian, and the shares of the classes."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from metapl.core import rng
from metapl.methods.classical import poisson

COUNT, LABELLED, CLASSES = 6, 7, 3


@pytest.fixture(scope="module")
def points():
    y = torch.arange(40) % CLASSES
    return rng.normal(rng.key(0), (40, 4)) + 0.5 * torch.nn.functional.one_hot(y, 4), y


def hidden(y):
    return torch.where(torch.arange(len(y)) < LABELLED, y, -1)


def dense(z):
    """W of the docstring, by scikit-learn's neighbours and loops."""
    distances, indices = NearestNeighbors(n_neighbors=COUNT).fit(z).kneighbors()
    one_way = np.zeros((len(z), len(z)))
    for i, row in enumerate(indices):
        for j, far in zip(row, distances[i], strict=True):
            one_way[i, j] = np.exp(-4 * far**2 / distances[i, -1] ** 2)
    return (one_way + one_way.T) / 2


def solved(weight, y):
    """u with L u = charges, by least squares; Σ_i d_i u_i = 0 picks one of them, as a walk from 0 does."""
    degrees = weight.sum(1)
    charges = np.zeros((len(y), CLASSES))
    charges[:LABELLED] = np.eye(CLASSES)[y[:LABELLED]] - np.eye(CLASSES)[y[:LABELLED]].mean(0)
    found = np.linalg.lstsq(np.diag(degrees) - weight, charges, rcond=None)[0]
    return found - degrees @ found / degrees.sum()


def test_the_neighbours_of_each_example(points, monkeypatch):
    monkeypatch.setattr(poisson, "ROWS", 7)  # so that there are several parts
    distances, indices = poisson.neighbours(points[0], COUNT)
    far, near = NearestNeighbors(n_neighbors=COUNT).fit(points[0]).kneighbors()
    assert torch.equal(indices, torch.from_numpy(near))
    np.testing.assert_allclose(distances.sqrt(), far, rtol=1e-4)


def test_the_graph(points):
    found = poisson.affinities(*poisson.neighbours(points[0], COUNT)).toarray()
    np.testing.assert_allclose(found, dense(points[0].numpy()), atol=1e-5)


def test_the_potentials_solve_the_system_of_the_laplacian(points):
    z, y = points
    expected = solved(dense(z.numpy()), y.numpy())
    found = poisson.potentials(poisson.affinities(*poisson.neighbours(z, COUNT)), hidden(y), CLASSES)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_the_answer_is_a_softmax_of_the_potentials(points, temperature):
    z, y = points
    u = solved(dense(z.numpy()), y.numpy())
    powers = np.exp(u / (temperature * u.std(ddof=1)))
    found = poisson.answer(z, hidden(y), CLASSES, nearest=COUNT, temperature=temperature)
    np.testing.assert_allclose(found, powers / powers.sum(1, keepdims=True), atol=1e-3)


def test_the_mean_is_the_prior():
    logits = 3.0 * rng.normal(rng.key(4), (300, 3)).double()
    prior = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    found = poisson.balanced(logits, prior)
    np.testing.assert_allclose(found.mean(0), prior, atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-12)
    shift = found.log() - torch.log_softmax(logits, 1)
    np.testing.assert_allclose((shift - shift[:, :1]).std(0), 0.0, atol=1e-9)  # one shift of the logits for all


def test_an_answer_has_the_prior_that_is_asked_for(points):
    z, y = points
    prior = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    found = poisson.answer(z, hidden(y), CLASSES, prior, nearest=COUNT)
    np.testing.assert_allclose(found.mean(0), prior, atol=1e-6)
