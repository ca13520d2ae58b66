"""Label spreading is that of scikit-learn, its classifier of new examples too."""

import numpy as np
import pytest
import torch
from sklearn.semi_supervised import LabelSpreading

from metapl.core import rng
from metapl.data.form import Form
from metapl.methods.classical import choice, scaling, spreading
from metapl.methods.classical.model import model
from metapl.methods.seen import Seen


@pytest.fixture(scope="module")
def points():
    y = torch.arange(80) % 3
    return rng.normal(rng.key(0), (80, 4)) + 1.5 * torch.nn.functional.one_hot(y, 4), y


def hidden(y, labelled=6):
    return torch.where(torch.arange(len(y)) < labelled, y, -1)


def truth(z, y, nearest, alpha):
    return LabelSpreading(kernel="knn", n_neighbors=nearest, alpha=alpha).fit(z.numpy(), y.numpy())


@pytest.mark.filterwarnings("ignore:max_iter=30 was reached")
@pytest.mark.parametrize("alpha", [0.2, 0.8, 0.99])
@pytest.mark.parametrize("nearest", [5, 7])
def test_a_graph_that_is_shared_gives_what_the_kernel_knn_gives(points, nearest, alpha):
    z, y = points
    expected = truth(z, hidden(y), nearest, alpha).label_distributions_
    graph = spreading.joined(z, nearest)
    for _ in range(2):  # it is not changed
        found = spreading.spread(z, hidden(y), 3, alpha=alpha, graph=graph)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(spreading.spread(z, hidden(y), 3, alpha=alpha, nearest=nearest), expected, atol=1e-6)


def test_a_class_that_no_example_has_gets_nothing(points):
    z, y = points
    y = torch.where(y == 1, -1, hidden(y, 12))
    found = spreading.spread(z, y, 4, alpha=0.5, nearest=7)
    assert found[:, [1, 3]].abs().max() == 0
    np.testing.assert_allclose(found[:, [0, 2]], truth(z, y, 7, 0.5).label_distributions_, atol=1e-6)


def test_examples_that_no_label_reaches_say_nothing():
    z = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    found = spreading.spread(z, torch.tensor([1, -1, -1, -1, -1, -1]), 2, alpha=0.5, nearest=3)
    assert found.tolist() == [[0.0, 1.0]] * 3 + [[0.0, 0.0]] * 3


def seen(x, y, labelled):
    return Seen(x, y[:labelled], labelled, 0, Form("table", (4,), ("a", "b", "c"), {"columns": []}), rng.key(3))


@pytest.mark.parametrize("settings", [(7, 0.2), (20, 0.8)])
def test_new_examples_get_the_probabilities_of_scikit_learn(points, settings, monkeypatch):
    x, y = points
    chosen = spreading.Settings("as stored", *settings), False, choice.Trial([], "")
    monkeypatch.setattr(spreading, "choose", lambda _: chosen)
    given = seen(x[:60], y[:60], 9)
    network = spreading.fit(given).networks["spreading"]
    scaled, z = scaling.apart(given, "as stored")
    expected = truth(z, hidden(y[:60], 9), *settings).predict_proba(scaled(x).numpy())
    logits, _ = model().apply(*network, x, train=False)
    np.testing.assert_allclose(torch.softmax(logits.double(), 1), expected, atol=1e-5)


def test_there_may_be_fewer_examples_than_neighbours():
    x, y = torch.eye(4)[:3], torch.tensor([0, 1, 2])
    network = spreading.fit(seen(x, y, 3)).networks["spreading"]
    assert network.buffers["ranks"].shape == (3,)
    assert network.params["votes"].argmax(1).tolist() == [0, 1, 2]
