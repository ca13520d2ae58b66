"""The examples on flipped labels: the data, weights and meta-gradients by plain autograd, and training that helps."""

import sys
from functools import partial

import flipped
import meta_weight_net
import pytest
import reweighting
import torch
import weighted
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import metapl as mp

RATE = 0.1


@pytest.fixture(scope="module")
def data():
    found = flipped.digits(0, labelled=40, clean=10)
    return found._replace(**{name: getattr(found, name).double() for name in ("x", "clean_x", "test_x")})


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return weighted.network().double()


@pytest.fixture(scope="module")
def model(module):
    return mp.from_module(lambda: module)


def parameters(module):
    return {name: leaf.detach().clone().requires_grad_() for name, leaf in module.named_parameters()}


def losses(module, params, x, y):
    return cross_entropy(torch.func.functional_call(module, params, (x,)), y, reduction="none")


def gradient(loss, params, **options):
    return dict(zip(params, torch.autograd.grad(loss, list(params.values()), **options), strict=True))


def test_the_share_that_is_wrong_is_wrong():
    data = flipped.digits(0, flipped=0.4)
    original = flipped.digits(0, flipped=0.0)
    assert torch.equal(data.x, original.x)
    assert torch.equal(data.y != original.y, data.wrong)
    assert float(data.wrong.float().mean()) == pytest.approx(0.4, abs=0.05)
    images = load_digits(return_X_y=True)[0] / 16.0
    parts = torch.cat([data.x, data.clean_x, data.test_x]).double()
    assert sorted(parts.sum(1).tolist()) == sorted(images.sum(1).tolist())


def test_weights_are_the_cosines_that_help(module, model, data):
    """In closed form: −∂/∂ε_i at ε = 0 is rate · ⟨∇ clean loss, ∇ loss_i⟩."""
    params = parameters(module)
    found = reweighting.weights(model, data, {n: p.detach() for n, p in params.items()}, data.x, data.y)
    clean = gradient(losses(module, params, data.clean_x, data.clean_y).mean(), params)
    helps = []
    for x, y in zip(data.x, data.y, strict=True):
        one = gradient(losses(module, params, x[None], y[None]).sum(), params)
        helps.append(sum((clean[name] * one[name]).sum() for name in params))
    expected = torch.stack(helps).clamp(min=0)
    expected = expected / expected.sum()
    assert 0 < (expected == 0).sum() < len(expected)
    assert float((found - expected).norm() / expected.norm()) < 1e-8


def test_the_gradient_of_meta_weight_net(module, model, data):
    params = parameters(module)
    torch.manual_seed(1)
    weigher = meta_weight_net.net().double()
    theta = parameters(weigher)
    models = model, mp.from_module(lambda: weigher)
    bare = ({n: p.detach() for n, p in tree.items()} for tree in (theta, params))
    found = meta_weight_net.meta_gradient(models, data, *bare, data.x, data.y)

    each = losses(module, params, data.x, data.y)
    weights = torch.func.functional_call(weigher, theta, (each.detach()[:, None],))[:, 0]
    step = gradient((weights * each).mean(), params, create_graph=True)
    after = {name: params[name] - RATE * step[name] for name in params}
    expected = gradient(losses(module, after, data.clean_x, data.clean_y).mean(), theta)
    assert float(mp.tree.norm(mp.tree.sub(found, expected)) / mp.tree.norm(expected)) < 1e-8


@pytest.mark.parametrize("way", [reweighting.reweighted, meta_weight_net.learned])
def test_a_method_trains(way, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["program", "1", "3"])
    monkeypatch.setattr(flipped, "digits", partial(flipped.digits, labelled=40))
    weighted.compare("the method", way)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "all labels alike",
        "the clean ones alone",
        "the right ones alone",
        "the method",
    ]
