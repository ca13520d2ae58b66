"""Baselines of attribution, and the search for wrong labels, against plain autograd and dense matrices."""

import attribution
import attribution_baselines as baselines
import flipped_labels
import pytest
import torch
from asserts import finite_differences, relative_error
from torch.nn import functional as F  # noqa: N812 - torch's own convention

import metapl as mp


def normal(seed, *shape):
    return mp.rng.normal(mp.key(seed), shape, torch.float64)


MODEL = attribution.network(3, 2, width=4)
PARAMS = mp.tree.to(MODEL.init(mp.key(0))[0], torch.float64)
X, Y = normal(1, 6, 3), torch.arange(6) % 2


def outputs(values, x):
    w1, b1, w2, b2 = values
    return torch.tanh(x @ w1.T + b1) @ w2.T + b2


def by_autograd(x, y):
    """The gradient of the loss of every example, one row each."""
    values = [leaf.clone().requires_grad_() for leaf in PARAMS.values()]
    losses = F.cross_entropy(outputs(values, x), y, reduction="none")
    rows = [torch.autograd.grad(loss, values, retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([leaf.flatten() for leaf in row]) for row in rows])


def gauss_newton():
    """Σ JᵀHJ / examples, with the Jacobian row by row, and H = diag(p) − p pᵀ."""
    values = [leaf.clone().requires_grad_() for leaf in PARAMS.values()]
    logits = outputs(values, X)
    total = 0.0
    for row in logits:
        each = [torch.autograd.grad(out, values, retain_graph=True) for out in row]
        jacobian = torch.stack([torch.cat([leaf.flatten() for leaf in one]) for one in each])
        p = row.detach().softmax(0)
        total = total + jacobian.T @ (p.diag() - torch.outer(p, p)) @ jacobian
    return total / len(X)


def test_gradients_are_those_of_single_examples():
    assert relative_error(baselines.flat(baselines.gradients(MODEL, PARAMS, X, Y)), by_autograd(X, Y)) < 1e-12


def test_cosines_are_in_proportion_to_lengths():
    each, test = by_autograd(X, Y), by_autograd(X[:2] + 0.1, Y[:2])
    expected = (test @ each.T) / test.norm(dim=1, keepdim=True) / each.norm(dim=1)
    found = baselines.cosine(*(baselines.gradients(MODEL, PARAMS, *of) for of in ((X, Y), (X[:2] + 0.1, Y[:2]))))
    assert relative_error(found, expected) < 1e-12


def test_influence_is_that_of_the_inverted_matrix():
    each, test = (baselines.gradients(MODEL, PARAMS, *of) for of in ((X, Y), (X[:2] + 0.1, Y[:2])))
    found = baselines.influence(MODEL, PARAMS, (X, Y), each, test, damping=0.05)
    matrix = gauss_newton() + 0.05 * torch.eye(26, dtype=torch.float64)
    expected = -by_autograd(X[:2] + 0.1, Y[:2]) @ torch.linalg.inv(matrix) @ by_autograd(X, Y).T / len(X)
    assert relative_error(found, expected) < 1e-8


def test_a_share_of_labels_is_another_class():
    y = torch.arange(200) % 10
    noisy, wrong = flipped_labels.flip(y, 0.1)
    assert int(wrong.sum()) == 20
    assert bool(((noisy != y) == wrong).all())
    assert bool(((noisy >= 0) & (noisy < 10)).all())


def test_precision_counts_the_highest():
    wrong = torch.tensor([True, False, True, False])
    assert flipped_labels.precision(torch.tensor([4.0, 3.0, 2.0, 1.0]), wrong) == 0.5
    assert flipped_labels.precision(torch.tensor([4.0, 1.0, 2.0, 0.0]), wrong) == 1.0


def test_harm_is_the_slope_of_the_clean_loss():
    clean, short = (X[:3] + 0.2, Y[:3]), {"epochs": 2, "batch": 3}
    found = flipped_labels.harm(MODEL, PARAMS, (X, Y), clean, **short)

    def mean(weights):
        return attribution.losses(weights, MODEL, PARAMS, (X, Y), clean, **short, method="reverse").mean()

    weights = torch.ones(len(X), dtype=torch.float64)
    assert relative_error(found, finite_differences(mean, weights)) < 1e-8


@pytest.mark.parametrize("program", [baselines, flipped_labels])
def test_the_programs_print_their_figures(program, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["program"])
    program.main(120, 4)
    assert len(capsys.readouterr().out.splitlines()) >= 3
