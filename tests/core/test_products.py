"""`hvp` and `ggn` against matrices made by torch, and their own derivatives."""

import torch
from asserts import relative_error
from torch.autograd.functional import hessian, jacobian

from metapl.core import products, rng

X = rng.normal(rng.key(1), (5, 3), torch.float64)
W, ALONG = rng.normal(rng.key(2), (3,), torch.float64), rng.normal(rng.key(3), (3,), torch.float64)


def forward(w):
    return torch.stack([(X @ w).tanh(), (X @ w**2).sin()], dim=-1)


def loss(logits):
    return -torch.log_softmax(logits, dim=-1)[:, 0].mean() + 0.1 * (logits**4).sum()


def test_hessian():
    found = products.hvp(lambda w: loss(forward(w)), W, ALONG)
    assert relative_error(found, hessian(lambda w: loss(forward(w)), W) @ ALONG) <= 1e-12


def test_gauss_newton():
    j = jacobian(forward, W).reshape(-1, 3)
    h = hessian(loss, forward(W)).reshape(len(j), len(j))
    found = products.ggn(forward, loss, W, ALONG)
    assert relative_error(found, j.T @ h @ j @ ALONG) <= 1e-12
    linear = products.ggn(lambda w: X @ w, lambda y: (y**3).sum(), W, ALONG)
    assert relative_error(linear, products.hvp(lambda w: ((X @ w) ** 3).sum(), W, ALONG)) <= 1e-12


def test_they_are_differentiable_and_vectorised():
    """Of w⁴: 12 w² u, and its derivative 24 w u."""
    w = W.clone().requires_grad_()
    found = products.hvp(lambda w: (w**4).sum(), w, ALONG)
    assert relative_error(found, 12 * W**2 * ALONG) <= 1e-12
    assert relative_error(torch.autograd.grad(found.sum(), w)[0], 24 * W * ALONG) <= 1e-12
    both = torch.vmap(lambda u: products.ggn(forward, loss, W, u))(torch.stack([ALONG, W]))
    assert relative_error(both[1], products.ggn(forward, loss, W, W)) <= 1e-12
