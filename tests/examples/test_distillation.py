"""examples/distillation.py: the derivative in images and rate against plain autograd, and its figures."""

import distillation
import torch
from asserts import relative_error
from torch.nn import functional as F  # noqa: N812 - torch's own convention

import metapl as mp


def by_torch(theta, params, real):
    """The loss on real examples after steps of SGD on the images, recorded by autograd."""
    values = [value.requires_grad_() for value in params.values()]

    def loss(values, x, y):
        w1, b1, w2, b2 = values
        return F.cross_entropy(torch.tanh(x @ w1.T + b1) @ w2.T + b2, y)

    for _ in range(distillation.STEPS):
        grads = torch.autograd.grad(loss(values, theta["images"], torch.arange(10)), values, create_graph=True)
        values = [value - theta["log lr"].exp() * grad for value, grad in zip(values, grads, strict=True)]
    return loss(values, *real)


def test_images_and_rate_have_the_derivative_of_plain_autograd():
    (x, y), _ = mp.tree.to(distillation.data(), torch.float64)
    starts = mp.tree.to(distillation.drawn(mp.key(3), 2), torch.float64)
    theta = {"images": x[:10], "log lr": torch.tensor(-1.0, dtype=torch.float64)}
    found = torch.func.grad(distillation.mean_loss)(theta, starts, (x[10:60], y[10:60]))
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in theta.items()}
    losses = [
        by_torch(leaves, {name: leaf[i] for name, leaf in starts.items()}, (x[10:60], y[10:60])) for i in range(2)
    ]
    expected = dict(zip(leaves, torch.autograd.grad(sum(losses) / 2.0, list(leaves.values())), strict=True))
    assert relative_error(found, expected) < 1e-10


def test_the_networks_differ():
    starts = distillation.drawn(mp.key(3), 2)
    assert all(bool((leaf[0] != leaf[1]).any()) for leaf in starts.values())


def test_the_program_distils(capsys):
    distillation.main(outer_steps=2)
    lines = capsys.readouterr().out.splitlines()
    *real, _, distilled = (float(line.split("accuracy ")[1].split(",")[0]) for line in lines)
    assert len(real) == 5
    assert distilled > max(real)
