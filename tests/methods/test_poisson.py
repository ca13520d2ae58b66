"""Poisson learning against a dense solution of the graph's Laplacian."""

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
    found = poisson.potentials(poisson.graph(z, COUNT), poisson.charges(hidden(y), CLASSES))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_columns_of_charges_are_solved_independently(points):
    z, y = points
    several = torch.cat([poisson.charges(one, CLASSES) for one in (hidden(y), y.roll(1))], dim=1)
    found = poisson.potentials(poisson.graph(z, COUNT), several)
    alone = poisson.potentials(poisson.graph(z, COUNT), several[:, CLASSES:])
    np.testing.assert_allclose(found[:, CLASSES:], alone, rtol=1e-12)


def test_a_pool_smaller_than_the_neighbours_wanted_has_a_graph(points):
    assert poisson.graph(points[0][:5], 10).shape == (5, 5)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_logits_are_potentials_in_their_standard_deviations(temperature):
    u = rng.normal(rng.key(5), (40, 3)).double()
    powers = np.exp(u.numpy() / (temperature * float(u.std())))
    found = poisson.logits(u, temperature=temperature).exp()
    np.testing.assert_allclose(found, powers / powers.sum(1, keepdims=True), rtol=1e-9)


def test_potentials_that_are_all_zero_are_undecided():
    assert poisson.logits(torch.zeros(4, 2).double()).exp().tolist() == [[0.5, 0.5]] * 4
