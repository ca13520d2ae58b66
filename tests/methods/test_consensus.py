"""The consensus of a regression and a graph: its formula, its prior, and what it leaves."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from metapl.core import rng
from metapl.data.form import Form
from metapl.methods.classical import choice, consensus, poisson, scaling, shares
from metapl.methods.classical.model import model
from metapl.methods.seen import Prior, Seen

FORM = Form("table", (4,), ("a", "b", "c"), {"columns": []})


@pytest.fixture(scope="module")
def points():
    y = torch.arange(90) % 3
    return rng.normal(rng.key(0), (90, 4)) + 2.0 * torch.nn.functional.one_hot(y, 4), y


def distributions(seed):
    return torch.softmax(rng.normal(rng.key(seed), (50, 3)).double(), 1)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_pooled_is_a_weighted_geometric_mean(share):
    p, q = distributions(1), distributions(2)
    mean = p.numpy() ** share * q.numpy() ** (1 - share)
    found = consensus.Experts(p.log(), q.log(), 1.0).pooled(share, None).exp()
    np.testing.assert_allclose(found, mean / mean.sum(1, keepdims=True), rtol=1e-9)


def test_pooled_with_a_known_prior_has_its_mean():
    prior = Prior(torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64))
    found = consensus.Experts(distributions(1).log(), distributions(2).log(), 1.0).pooled(0.5, prior)
    np.testing.assert_allclose(found.exp().mean(0), prior.shares, atol=1e-6)


def test_pooled_with_a_guess_has_the_mean_of_the_estimate():
    even = torch.full((3,), 1 / 3, dtype=torch.float64)
    p = torch.softmax(distributions(1).log() + torch.tensor([3.0, 0.0, 0.0]), dim=1)
    experts = consensus.Experts(p.log(), distributions(2).log(), 4.0)
    wanted = shares.shrunk((p.log() + distributions(2).log()) / 2, even, 4.0)
    assert wanted[0] > 0.5
    np.testing.assert_allclose(experts.pooled(0.5, Prior(even, guess=True)).exp().mean(0), wanted, atol=1e-6)


@pytest.mark.parametrize(("labelled", "strength"), [(3, 1.0), (12, 1.0), (12, 10.0)])
def test_the_experts_are_the_regression_and_the_graph(points, labelled, strength):
    x, y = points
    z = x / 4
    shown = torch.arange(labelled)
    truth = LogisticRegression(C=strength * labelled / 3, max_iter=200).fit(z[:labelled].numpy(), y[:labelled].numpy())
    weights = poisson.graph(z, consensus.NEAREST)
    other = torch.arange(30, 60)
    hidden = consensus.hidden(90, y, shown)
    several = consensus.by_graph(weights, [consensus.hidden(90, y, other), hidden], 3)
    found = consensus.experts(z, hidden, several[1], strength)
    np.testing.assert_allclose(found.regression.exp(), truth.predict_proba(z.numpy()), atol=1e-4)
    graph = poisson.logits(poisson.potentials(weights, poisson.charges(consensus.hidden(90, y, shown), 3)))
    np.testing.assert_allclose(found.graph, graph, rtol=1e-9)


def test_an_impossible_class_is_no_veto_without_end(points):
    x, _ = points
    only = consensus.hidden(90, torch.zeros(90, dtype=torch.int64), torch.arange(3))
    found = consensus.experts(x, only, torch.zeros(90, 3), 1.0).regression
    assert found.min() == consensus.LEAST


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
    (graph,) = consensus.by_graph(poisson.graph(z, consensus.NEAREST), [hidden], 3)
    found = consensus.weigh(given)
    pooled = consensus.experts(z, hidden, graph, found.strength).pooled(found.share, None)
    assert torch.equal(network.params["votes"][6:], pooled.exp().float()[6:])
    logits, _ = model().apply(*network, x, train=False)
    assert (logits.argmax(1) == y).double().mean() > 0.85


def test_the_prior_of_a_run_decides_the_shares(points):
    x, y = points
    without = fitted(x, y)
    with_it = fitted(x, y, Prior(torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)))
    counts = [one.networks["consensus"].params["votes"].mean(0)[0] for one in (without, with_it)]
    assert counts[1] > counts[0] + 0.2


def moons(count):
    """Two half circles that no straight line parts, `[count, 2]`."""
    y = torch.arange(count) % 2
    angle = np.pi * rng.uniform(rng.key(7), (count,))
    x = torch.stack([angle.cos() + y, (1 - 2 * y) * angle.sin() + 0.5 * y], dim=1)
    return x + 0.05 * rng.normal(rng.key(8), (count, 2)), y


def striped(count):
    """Classes by a direction whose neighbours are decided by nine others, `[count, 10]`."""
    x = rng.normal(rng.key(9), (count, 10))
    y = (x[:, 0] > 0).long()
    x[:, 0] *= 0.5
    return x, y


def weighed(x, y, labelled, kind="arrays"):
    details = {"mean": [0.0] * x.shape[1], "std": [1.0] * x.shape[1]}
    form = Form(kind, (x.shape[1],), ("a", "b"), details)
    return Seen(x.float(), y[:labelled], labelled, 0, form, rng.key(3))


def test_the_regression_counts_where_it_is_right_and_the_graph_where_it_is():
    curved = consensus.weigh(weighed(*moons(400), 40))
    straight = consensus.weigh(weighed(*striped(400), 60))
    assert curved.share < 0.3
    assert straight.share > 0.7


@pytest.mark.parametrize(("noise", "strength"), [(0.0, 100.0), (3.0, 1.0)])
def test_the_regression_is_as_firm_as_the_labels_allow(noise, strength):
    x = rng.normal(rng.key(1), (300, 12))
    y = (x[:, 0] + noise * rng.normal(rng.key(2), (300,)) > 0).long()
    assert consensus.weigh(weighed(x, y, 100)).strength == strength


def test_the_share_is_the_mean_of_its_posterior():
    seen = weighed(*striped(200), 20)
    trial = choice.trial(seen)
    evidence = {name: consensus.evidence(seen, name, trial).numpy() for name in scaling.SCALINGS}
    rows = {
        (name, strength): row
        for name, of in evidence.items()
        for strength, row in zip(consensus.STRENGTHS, of, strict=True)
    }
    best = max(rows, key=lambda one: np.exp(rows[one]).sum())
    weights = np.exp(rows[best] - rows[best].max())
    found = consensus.weigh(seen)
    assert (found.scaling, found.strength) == best
    assert found.share == pytest.approx(weights @ np.array(consensus.SHARES) / weights.sum())


def test_evidence_is_the_likelihood_of_labels_that_are_left_out():
    seen = weighed(*striped(60), 12)
    trial = choice.trial(seen)
    found = consensus.evidence(seen, "standardised", trial)
    z = scaling.fit("standardised", seen.x, seen.form)(seen.x)
    graph = poisson.graph(z, 10)
    potentials, regressions = {}, {}
    for at, (shown, _) in enumerate(trial.rounds):
        y = torch.full((60,), -1)
        y[shown] = seen.y[shown]
        potentials[at] = poisson.potentials(graph, poisson.charges(y, 2)).numpy()
        for strength in consensus.STRENGTHS:
            c = strength * max(1.0, len(shown) / 2)
            p = LogisticRegression(C=c, max_iter=200).fit(z[shown], y[shown])
            regressions[at, strength] = p.predict_log_proba(z)
    best = []
    for strength, share in itertools.product(consensus.STRENGTHS, consensus.SHARES):
        sums = []
        for temperature in consensus.TEMPERATURES:
            total = 0.0
            for at, (_, asked) in enumerate(trial.rounds):
                u = potentials[at]
                logits = share * regressions[at, strength] + (1 - share) * u / (0.3 * u.std(ddof=1))
                q = np.exp(logits / temperature)
                q = q / q.sum(1, keepdims=True)
                total += np.log(q[asked, seen.y[asked]]).clip(-9).sum()
            sums.append(total)
        best.append(max(sums))
    np.testing.assert_allclose(found.flatten(), best, rtol=1e-3)


def test_one_label_a_class_leaves_one_half():
    x, y = moons(100)
    assert consensus.weigh(weighed(x, y, 2))[1:3] == (1.0, 0.5)


@pytest.mark.parametrize(
    ("kind", "length", "first"),
    [
        ("arrays", 2, "standardised"),
        ("arrays", 63, "standardised"),
        ("arrays", 64, "unit length"),
        ("features", 2, "unit length"),
        ("table", 9, "as stored"),
    ],
)
def test_the_preferred_scaling(kind, length, first):
    assert scaling.preferred(Form(kind, (length,), ("a", "b"), {}))[0] == first
