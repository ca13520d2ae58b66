"""examples/attribution.py: its scores against plain autograd, its subsets against what they say, and its figure."""

import attribution
import numpy as np
import pytest
import torch
from asserts import relative_error
from torch.nn import functional as F  # noqa: N812 - torch's own convention

import metapl as mp

EXAMPLES, EPOCHS, BATCH = 7, 3, 3


def normal(seed, *shape):
    return mp.rng.normal(mp.key(seed), shape, torch.float64)


@pytest.fixture(scope="module")
def problem():
    model = attribution.network(3, 2, width=4)
    start = mp.tree.to(model.init(mp.key(0))[0], torch.float64)
    examples, tests = (normal(1, EXAMPLES, 3), torch.arange(EXAMPLES) % 2), (normal(2, 2, 3), torch.tensor([0, 1]))
    return {"model": model, "start": start, "examples": examples, "tests": tests, "epochs": EPOCHS, "batch": BATCH}


def by_torch(weights, start, examples, tests):
    """SGD with momentum, written out and recorded: the losses of the test examples."""
    names, params = list(start), [value.clone().requires_grad_() for value in start.values()]

    def outputs(params, x):
        (w1, b1, w2, b2), _ = params, names
        return torch.tanh(x @ w1.T + b1) @ w2.T + b2

    velocity = [torch.zeros_like(value) for value in params]
    for epoch in range(EPOCHS):
        for rows in mp.rng.permutation(mp.fold_in(mp.key(1), epoch), EXAMPLES).split(BATCH):
            each = F.cross_entropy(outputs(params, examples[0][rows]), examples[1][rows], reduction="none")
            grads = torch.autograd.grad((weights[rows] * each).mean(), params, create_graph=True)
            velocity = [0.9 * v + g for v, g in zip(velocity, grads, strict=True)]
            params = [p - 0.02 * v for p, v in zip(params, velocity, strict=True)]
    return F.cross_entropy(outputs(params, tests[0]), tests[1], reduction="none")


def test_the_scores_are_those_of_plain_autograd(problem):
    weights = normal(3, EXAMPLES).exp()
    scores = torch.func.jacrev(lambda weights: attribution.losses(weights, **problem))(weights)
    weights.requires_grad_()
    losses = by_torch(weights, problem["start"], problem["examples"], problem["tests"])
    expected = torch.stack([torch.autograd.grad(one, weights, retain_graph=True)[0] for one in losses])
    assert relative_error(scores, expected) < 1e-10
    assert relative_error(attribution.losses(weights.detach(), **problem), losses.detach()) < 1e-12


def test_a_population_is_what_its_members_are(problem):
    weights = normal(4, 3, EXAMPLES).exp()
    together = torch.vmap(lambda weights: attribution.losses(weights, **problem, method="reverse"))(weights)
    apart = torch.stack([by_torch(one, problem["start"], problem["examples"], problem["tests"]) for one in weights])
    assert relative_error(together, apart.detach()) < 1e-12


def test_lds_is_the_mean_of_rank_correlations():
    found = normal(5, 9, 2)
    predicted = torch.stack([found[:, 0].exp(), found[:, 1].roll(1)], dim=1)
    ranks = [np.argsort(np.argsort(column)) for column in (predicted[:, 1].numpy(), found[:, 1].numpy())]
    assert attribution.lds(predicted, found) == pytest.approx((1.0 + np.corrcoef(*ranks)[0, 1]) / 2.0)


def test_the_program_predicts_what_leaving_out_changes(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["attribution.py"])
    attribution.main(count=200, tests=4, trainings=16)
    assert float(capsys.readouterr().out.split()[1]) > 0.95
