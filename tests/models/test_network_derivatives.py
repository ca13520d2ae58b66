"""Derivatives of the published networks in float64, and many of them at once."""

import pytest
import torch
from asserts import relative_error
from hollow import TINY, noise

from metapl.core import rng
from metapl.models import convnet, efficientnet, resnet18, resnet50, vit, wrn
from metapl.nn import functional

VARIANTS = [
    (convnet, (3, 8, 8), {"norm": "group", "dropout": 0.5}),
    (convnet, (3, 9, 9), {"downsample": "max", "channels_last": True}),
    (convnet, (3, 9, 9), {"shrink": 2}),
    (wrn, (3, 8, 8), {"dropout": 0.5}),
    (resnet18, (1, 8, 8), {}),
    (resnet18, (3, 64, 64), {}),
    (resnet50, (3, 8, 8), {"norm": "group", "dropout": 0.5}),
    (vit, (3, 8, 8), {"dropout": 0.25}),
    (efficientnet, (3, 8, 8), {"dropout": 0.25, "drop_path": 0.5}),
]
variants = pytest.mark.parametrize(
    ("build", "shape", "options"), VARIANTS, ids=[f"{build.__name__}-{shape[-1]}" for build, shape, _ in VARIANTS]
)
modes = pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])


def pure(build, shape, options, train):
    """A smooth function of the parameters, a point and a unit direction.

    The point is not the initial one: there the last norm of a residual block has weight zero, so that the block's
    ReLU stands at its kink wherever its input is zero, and the loss has no derivative.
    """
    model = functional.cast(
        functional.from_module(lambda: build(shape, 5, **{**TINY[build], **options})), torch.float64
    )
    params, buffers = model.init(rng.key(0))
    params = {name: value + 0.05 * noise(*value.shape, seed=i) for i, (name, value) in enumerate(params.items())}
    drawn = {name: noise(*value.shape, seed=i + 1000) for i, (name, value) in enumerate(params.items())}
    norm = sum(value.square().sum() for value in drawn.values()).sqrt()
    x = noise(4, *shape)

    def logits(params):
        return model.apply(params, buffers, x, train=train, key=rng.key(1))[0]

    return logits, params, {name: value / norm for name, value in drawn.items()}


def loss_of(logits):
    return lambda params: torch.logsumexp(logits(params), dim=-1).square().mean()


def moved(params, direction, step):
    return {name: value + step * direction[name] for name, value in params.items()}


@variants
@modes
def test_first_derivatives(build, shape, options, train):
    """torch.autograd = torch.func.grad, and ⟨gradient, direction⟩ = jvp = central difference."""
    logits, params, direction = pure(build, shape, options, train)
    loss = loss_of(logits)
    gradient = torch.func.grad(loss)(params)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    plain = torch.autograd.grad(loss(leaves), list(leaves.values()))
    assert relative_error(list(gradient.values()), plain) < 1e-12
    _, forward = torch.func.jvp(loss, (params,), (direction,))
    reverse = sum((gradient[name] * direction[name]).sum() for name in params)
    torch.testing.assert_close(forward, reverse, rtol=1e-9, atol=1e-13)
    difference = (loss(moved(params, direction, 1e-6)) - loss(moved(params, direction, -1e-6))) / 2e-6
    torch.testing.assert_close(forward, difference.detach(), rtol=1e-5, atol=1e-9)


@variants
@modes
def test_second_derivatives(build, shape, options, train):
    """Backward over backward = forward over backward = central difference of the gradient."""
    logits, params, direction = pure(build, shape, options, train)
    gradient = torch.func.grad(loss_of(logits))
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    first = torch.autograd.grad(loss_of(logits)(leaves), list(leaves.values()), create_graph=True)
    along = sum((part * direction[name]).sum() for part, name in zip(first, leaves, strict=True))
    twice = torch.autograd.grad(along, list(leaves.values()), materialize_grads=True)
    near, far = (gradient(moved(params, direction, step)) for step in (1e-6, -1e-6))
    difference = [(near[name] - far[name]) / 2e-6 for name in params]
    assert relative_error(twice, difference) < 1e-5
    _, forward = torch.func.jvp(gradient, (params,), (direction,))
    assert relative_error([forward[name] for name in params], twice) < 1e-9


@variants
def test_many_networks_at_once(build, shape, options):
    """torch.vmap over parameters, in evaluation."""
    logits, params, direction = pure(build, shape, options, train=False)
    members = [params, moved(params, direction, 0.5), moved(params, direction, -0.5)]
    stacked = {name: torch.stack([member[name] for member in members]) for name in params}
    torch.testing.assert_close(torch.vmap(logits)(stacked), torch.stack([logits(member) for member in members]))
