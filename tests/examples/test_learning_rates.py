"""examples/learning_rates.py: the derivative in every rate and decay against plain autograd."""

import learning_rates
import pytest
import torch
from asserts import relative_error
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

import metapl as mp

STEPS = 5


def normal(seed, *shape):
    return mp.rng.normal(mp.key(seed), shape, torch.float64)


def by_torch(theta, params, inputs, held_out):
    """The held-out loss after w ← w − rate (∇ loss + decay w), recorded by autograd."""
    names = list(params)
    values = [params[name].clone().requires_grad_() for name in names]

    def loss(values, x, y):
        w1, b1, w2, b2 = values
        return F.cross_entropy(torch.relu(x @ w1.T + b1) @ w2.T + b2, y)

    for x, y in zip(*inputs, strict=True):
        grads = torch.autograd.grad(loss(values, x, y), values, create_graph=True)
        values = [
            value - theta["lr"][name].exp() * (grad + theta["decay"][name].exp() * value)
            for name, value, grad in zip(names, values, grads, strict=True)
        ]
    return loss(values, *held_out)


@pytest.mark.parametrize("how", [{"method": "reverse"}, {}, {"checkpoints": True}], ids=str)
def test_every_rate_and_decay_has_the_derivative_of_plain_autograd(how):
    model = mp.from_module(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
    params = mp.tree.to(model.init(mp.key(0))[0], torch.float64)
    inputs, held_out = (
        (normal(1, STEPS, 5, 4), torch.arange(STEPS * 5).view(STEPS, 5) % 3),
        (normal(2, 7, 4), torch.arange(7) % 3),
    )
    theta = learning_rates.everywhere(params, lr=-1.5, decay=-2.0)
    theta = mp.tree.map(lambda leaf: leaf + 0.1 * normal(3), theta)
    found = learning_rates.hypergradient(model, theta, params, inputs, held_out, **how)
    leaves, structure = mp.tree.flatten(mp.tree.map(lambda leaf: leaf.clone().requires_grad_(), theta))
    value = by_torch(mp.tree.unflatten(leaves, structure), params, inputs, held_out)
    expected = mp.tree.unflatten(list(torch.autograd.grad(value, leaves)), structure)
    assert relative_error(found.value, value.detach()) < 1e-12
    assert relative_error(found.grads, expected) < 1e-10
    assert min(float(leaf.abs()) for leaf in mp.tree.leaves(expected)) > 1e-6


def test_the_program_learns(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["learning_rates.py", "--steps", "20", "--outer-steps", "4"])
    learning_rates.main()
    losses = [float(line.split()[3].rstrip(",")) for line in capsys.readouterr().out.splitlines()[:-1]]
    assert losses[-1] < losses[0] - 0.05
