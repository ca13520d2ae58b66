"""Label spreading against a dense solution, and against scikit-learn on the same graph."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.semi_supervised import LabelSpreading

from metapl.core import rng
from metapl.methods.classical import graph

COUNT = 6


@pytest.fixture(scope="module")
def points():
    y = torch.arange(60) % 3
    return rng.normal(rng.key(0), (60, 4)) + 1.5 * torch.nn.functional.one_hot(y, 4), y


def dense(x):
    """W of the docstring, by scikit-learn's neighbours and loops."""
    distances, indices = NearestNeighbors(n_neighbors=COUNT).fit(x).kneighbors()
    weight = np.zeros((len(x), len(x)))
    for i, row in enumerate(indices):
        for j, far in zip(row, distances[i], strict=True):
            weight[i, j] = weight[j, i] = np.exp(-(far**2) / (distances[i, -1] * distances[j, -1]))
    return weight


def hidden(y, labelled=6):
    return torch.where(torch.arange(len(y)) < labelled, y, -1)


def test_the_neighbours_of_each_example(points, monkeypatch):
    monkeypatch.setattr(graph, "ROWS", 7)  # so that there are several parts
    distances, indices = graph.neighbours(points[0], COUNT)
    far, near = NearestNeighbors(n_neighbors=COUNT).fit(points[0]).kneighbors()
    assert torch.equal(indices, torch.from_numpy(near))
    np.testing.assert_allclose(distances.sqrt(), far, rtol=1e-4)


def test_the_graph(points):
    weight = dense(points[0].numpy())
    root = 1 / np.sqrt(weight.sum(1))
    found = graph.graph(*graph.neighbours(points[0], COUNT)).toarray()
    np.testing.assert_allclose(found, root[:, None] * weight * root, atol=1e-5)
    np.testing.assert_allclose(found, found.T, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_the_limit_is_that_of_a_dense_solve(points, alpha):
    x, y = points
    weight = dense(x.numpy())
    root = 1 / np.sqrt(weight.sum(1))
    known = np.eye(3)[y] * (hidden(y) >= 0).numpy()[:, None]
    limit = np.linalg.solve(np.eye(60) - alpha * root[:, None] * weight * root, (1 - alpha) * known)
    for mass in (False, True):
        expected = limit / limit.sum(0) if mass else limit
        found = graph.spread(x, hidden(y), classes=3, nearest=COUNT, alpha=alpha, mass=mass)
        np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=2e-4)


@pytest.mark.filterwarnings("ignore:max_iter=50 was reached")
def test_scikit_learn_spreads_the_same(points):
    x, y = points
    weight = dense(x.numpy())
    truth = LabelSpreading(kernel=lambda one, other: weight, alpha=0.7, max_iter=graph.STEPS, tol=0).fit(x, hidden(y))
    found = graph.spread(x, hidden(y), classes=3, nearest=COUNT, alpha=0.7, mass=False)
    # It divides by degrees of its own, in which the diagonal counts for nothing, as here.
    np.testing.assert_allclose(found, truth.label_distributions_, atol=1e-5)


def test_examples_that_no_label_reaches_and_examples_that_are_the_same():
    x = torch.tensor([[0.0], [0.0], [0.0], [9.0], [9.0], [9.0]])
    found = graph.spread(x, torch.tensor([1, -1, -1, -1, -1, -1]), classes=2, nearest=2)
    assert found.tolist() == [[0.0, 1.0]] * 3 + [[0.5, 0.5]] * 3


def test_there_may_be_fewer_examples_than_neighbours():
    found = graph.spread(torch.tensor([[0.0], [1.0], [1.1]]), torch.tensor([0, 1, -1]), classes=2)
    assert found.argmax(1).tolist() == [0, 1, 1]
