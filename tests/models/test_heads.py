"""The heads for features, against numpy and central differences."""

import numpy as np
import pytest
import torch

from metapl import models
from metapl.registry.errors import InputError

GENERATOR = np.random.default_rng(0)
X, W = GENERATOR.normal(size=(5, 6)), GENERATOR.normal(size=(3, 6)) * [[0.1], [1.0], [50.0]]


def cosine_logits(x, weight, scale):
    length = np.sqrt((weight**2).sum(1) + 1)
    return scale * (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (weight / length[:, None]).T


def test_linear_is_affine_and_starts_at_zero():
    head = models.build("linear", (2, 3), 3).double()
    x = torch.from_numpy(X).view(5, 2, 3)
    assert torch.equal(head(x), torch.zeros(5, 3, dtype=torch.float64))
    with torch.no_grad():
        head[1].weight.copy_(torch.from_numpy(W))
        head[1].bias.copy_(torch.arange(3))
    np.testing.assert_allclose(head(x).detach(), X @ W.T + np.arange(3), rtol=1e-12)
    assert models.build("linear:bias=false", (6,), 3)[1].bias is None


@pytest.mark.parametrize("scale", [10.0, 2.5])
def test_cosine_is_a_bounded_cosine(scale):
    head = models.build(f"cosine:scale={scale}", (6,), 3).double()
    with torch.no_grad():
        head[1].weight.copy_(torch.from_numpy(W))
    found = head(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(found, cosine_logits(X, W, scale), rtol=1e-12)
    np.testing.assert_allclose(head(torch.from_numpy(7 * X)).detach(), found, rtol=1e-12)
    cosine = X[:, :] @ W[2] / np.linalg.norm(X, axis=1) / np.linalg.norm(W[2])
    np.testing.assert_allclose(found[:, 2], scale * cosine, rtol=1e-3)  # a long vector is its direction


def test_cosine_starts_by_saying_nothing_and_has_a_gradient_there():
    head = models.build("cosine:scale=10", (6,), 3).double()
    x, y = torch.from_numpy(X), torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(head(x), torch.zeros(5, 3, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(head(x), y), head.parameters())

    def loss(weight):
        logits = cosine_logits(X, weight, 10.0)
        return (np.log(np.exp(logits).sum(1)) - logits[np.arange(5), y.numpy()]).mean()

    step, numbers = 1e-5, np.zeros((3, 6))
    for place in np.ndindex(3, 6):
        one = np.zeros((3, 6))
        one[place] = step
        numbers[place] = (loss(one) - loss(-one)) / (2 * step)
    np.testing.assert_allclose(gradient, numbers, rtol=1e-6, atol=1e-9)


def test_a_scale_of_zero_is_refused():
    with pytest.raises(InputError, match="cosine"):
        models.build("cosine:scale=0", (6,), 3)
