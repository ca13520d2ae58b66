"""The consensus of a regression and a graph: its formula, its prior, and what it leaves."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from metapl.core import rng
from metapl.data.form import Form
from metapl.methods.classical import consensus, poisson, scaling
from metapl.methods.classical.model import model
from metapl.methods.seen import Seen

FORM = Form("table", (4,), ("a", "b", "c"), {"columns": []})


@pytest.fixture(scope="module")
def points():
    y = torch.arange(90) % 3
    return rng.normal(rng.key(0), (90, 4)) + 2.0 * torch.nn.functional.one_hot(y, 4), y


def shares(seed):
    return torch.softmax(rng.normal(rng.key(seed), (50, 3)).double(), 1)


def test_pooled_is_the_geometric_mean():
    p, q = shares(1), shares(2)
    root = np.sqrt(p.numpy() * q.numpy())
    np.testing.assert_allclose(consensus.pooled(p, q), root / root.sum(1, keepdims=True), rtol=1e-9)


def test_pooled_with_a_prior_has_its_mean():
    prior = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
    found = consensus.pooled(shares(1), shares(2), prior)
    np.testing.assert_allclose(found.mean(0), prior, atol=1e-6)


def test_a_probability_of_zero_is_no_veto_without_end():
    found = consensus.pooled(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert found.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("labelled", [3, 12])
def test_answers_are_the_regression_and_the_graph_pooled(points, labelled):
    x, y = points
    z = x / 4
    hidden = torch.where(torch.arange(90) < labelled, y, -1)
    truth = LogisticRegression(C=labelled / 3, max_iter=200).fit(z[:labelled].numpy(), y[:labelled].numpy())
    graph = poisson.answer(z, hidden, 3).numpy()
    root = np.sqrt(truth.predict_proba(z.numpy()) * graph)
    found = consensus.answers(z, hidden, 3, None)
    np.testing.assert_allclose(found, root / root.sum(1, keepdims=True), atol=1e-4)


def fitted(x, y, prior=None, labelled=6):
    return consensus.fit(Seen(x, y[:labelled], labelled, 0, FORM, rng.key(3), prior))


def test_labelled_examples_keep_their_labels(points):
    x, y = points
    wrong = y.clone()
    wrong[:3] = (wrong[:3] + 1) % 3  # against their neighbours
    votes = fitted(x, wrong).networks["consensus"].params["votes"]
    assert torch.equal(votes[:6], torch.eye(3)[wrong[:6]])


def test_the_votes_of_all_others_are_the_answers(points):
    x, y = points
    given = Seen(x, y[:6], 6, 0, FORM, rng.key(3))
    _, z = scaling.apart(given, "as stored")
    network = consensus.fit(given).networks["consensus"]
    hidden = torch.where(torch.arange(90) < 6, y, -1)
    assert torch.equal(network.params["votes"][6:], consensus.answers(z, hidden, 3, None)[6:])
    logits, _ = model().apply(*network, x, train=False)
    assert (logits.argmax(1) == y).double().mean() > 0.85


def test_the_prior_of_a_run_decides_the_shares(points):
    x, y = points
    without = fitted(x, y)
    prior = torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)
    with_it = fitted(x, y, prior)
    assert without.chosen.endswith("shares of the classes as they come")
    assert with_it.chosen.endswith("shares of the classes as in the prior")
    counts = [one.networks["consensus"].params["votes"].mean(0)[0] for one in (without, with_it)]
    assert counts[1] > counts[0] + 0.2
