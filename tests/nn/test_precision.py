"""Training passes in bfloat16: what is rounded, what is not, and that derivatives go through any transform."""

import pytest
import torch
from torch import nn

from metapl.core import rng
from metapl.nn import functional, precision
from metapl.registry.errors import InputError


def network():
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))


@pytest.fixture
def made():
    full = functional.from_module(network)
    params, buffers = full.init(rng.key(0))
    return full, precision.lowered(full, "bf16"), params, buffers, rng.normal(rng.key(1), (20, 6))


def test_products_are_rounded_and_the_logits_are_float32():
    full = functional.from_module(lambda: nn.Linear(6, 3))
    params, buffers = full.init(rng.key(0))
    x = rng.normal(rng.key(1), (20, 6))
    logits, _ = precision.lowered(full, "bf16").apply(params, buffers, x, train=True)
    half = {name: value.bfloat16() for name, value in params.items()}
    expected = torch.nn.functional.linear(x.bfloat16(), half["weight"], half["bias"])
    assert logits.dtype == torch.float32
    assert torch.equal(logits, expected.float())
    assert not torch.equal(logits, full.apply(params, buffers, x, train=True)[0])


def test_evaluation_and_float32_are_as_they_were(made):
    full, low, params, buffers, x = made
    assert torch.equal(low.apply(params, buffers, x, train=False)[0], full.apply(params, buffers, x, train=False)[0])
    assert precision.lowered(full, "float32") is full


def test_running_statistics_stay_float32(made):
    _, low, params, buffers, x = made
    _, after = low.apply(params, buffers, x, train=True)
    assert after["1.running_mean"].dtype == torch.float32
    assert after["1.num_batches_tracked"].dtype == torch.int64


def test_numbers_of_double_precision_keep_it(made):
    full, low, params, buffers, x = made
    double = {name: value.double() for name, value in params.items()}
    kept = {name: value.double() if value.is_floating_point() else value for name, value in buffers.items()}
    found, expected = (one.apply(double, kept, x.double(), train=True)[0] for one in (low, full))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def loss(model, buffers, x):
    return lambda params: (model.apply(params, buffers, x, train=True)[0].log_softmax(-1)[:, 0] ** 2).mean()


def test_the_gradient_is_that_of_autocast_in_plain_torch():
    build = lambda: nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))  # noqa: E731
    low = precision.lowered(functional.from_module(build), "bf16")
    params, buffers = low.init(rng.key(0))
    x = rng.normal(rng.key(1), (20, 6))
    found = torch.func.grad(loss(low, buffers, x))(params)
    module = build()
    module.load_state_dict(params)
    with torch.autocast("cpu", torch.bfloat16):
        logits = module(x)
    (logits.float().log_softmax(-1)[:, 0] ** 2).mean().backward()
    for name, one in module.named_parameters():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], one.grad)


def test_forward_mode_and_gradients_of_gradients_are_near_those_of_float32(made):
    full, low, params, buffers, x = made
    keys = rng.split(rng.key(2), len(params))
    along = {name: rng.normal(key, value.shape) for key, (name, value) in zip(keys, params.items(), strict=True)}

    def slope(model):
        return torch.func.jvp(loss(model, buffers, x), (params,), (along,))[1]

    def curved(model):
        return torch.func.jvp(torch.func.grad(loss(model, buffers, x)), (params,), (along,))[1]

    def twice(model):
        inner = lambda one: sum((g**2).sum() for g in torch.func.grad(loss(model, buffers, x))(one).values())  # noqa: E731
        return torch.func.grad(inner)(params)

    assert float(slope(low)) == pytest.approx(float(slope(full)), rel=0.03, abs=0.01)
    reverse = torch.func.grad(loss(low, buffers, x))(params)
    assert float(slope(low)) == pytest.approx(sum(float((reverse[n] * along[n]).sum()) for n in along), rel=0.03)
    for derivative in (curved, twice):
        found, expected = (torch.cat([one.flatten() for one in derivative(of).values()]) for of in (low, full))
        assert float(torch.cosine_similarity(found, expected, dim=0)) > 0.995
        assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.05)


def test_members_of_a_population(made):
    _, low, params, buffers, x = made
    several = {name: torch.stack([value, 2 * value]) for name, value in params.items()}
    found = torch.vmap(lambda one: low.apply(one, buffers, x, train=True)[0])(several)
    torch.testing.assert_close(found[0], low.apply(params, buffers, x, train=True)[0], rtol=1e-2, atol=1e-2)


def test_another_precision(made):
    with pytest.raises(InputError, match=r"unknown precision 'float16': .* choose from bf16, float32"):
        precision.lowered(made[0], "float16")
