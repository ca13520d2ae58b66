"""A module as two pure functions: against running the module itself."""

import pytest
import torch
from asserts import assert_close_tree, assert_pure, finite_differences
from problems import NETWORKS, Tied, convnet, mlp
from torch import nn

from metapl.core import rng
from metapl.nn import functional

BUILDS = {name: NETWORKS[name].build for name in ("mlp", "batchnorm", "layernorm", "tied")}


def inputs(name, seed=0, rows=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, *NETWORKS[name].shape, generator=generator, dtype=torch.float64)


def both(build):
    """The model, its parameters and buffers, and a module that holds copies of them."""
    model = functional.from_module(build)
    params, buffers = model.init(rng.key(0))
    module = build()
    # `strict=False`: a shared parameter has two names in the module, and one here.
    missing = module.load_state_dict({**params, **buffers}, strict=False)
    assert not missing.unexpected_keys
    return model, params, buffers, module


@pytest.mark.parametrize("name", BUILDS)
def test_logits_and_statistics_are_those_of_the_module_over_several_passes(name):
    model, params, buffers, module = both(BUILDS[name])
    for step in range(3):
        x = inputs(name, step)
        logits, buffers = assert_pure(lambda p, b, x: model.apply(p, b, x, train=True), params, buffers, x)
        assert_close_tree(logits, module.train()(x).detach(), rtol=1e-14)
        assert_close_tree(buffers, dict(module.named_buffers()), rtol=1e-14)
        logits, unchanged = assert_pure(lambda p, b, x: model.apply(p, b, x, train=False), params, buffers, x)
        assert_close_tree(logits, module.eval()(x).detach(), rtol=1e-14)
        assert_close_tree(unchanged, buffers, rtol=0.0)


def test_batchnorm_counts_its_batches():
    model, params, buffers, _ = both(convnet)
    before = {name: value.clone() for name, value in buffers.items()}
    for _ in range(3):
        _, buffers = model.apply(params, buffers, inputs("batchnorm"), train=True)
    assert int(buffers["1.num_batches_tracked"]) == 3
    assert not torch.equal(buffers["1.running_mean"], before["1.running_mean"])


def test_buffers_that_the_module_assigns_come_back():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))
            self.register_buffer("total", torch.zeros(()))

        def forward(self, x):
            self.total = self.total + x.sum()
            return self.weight * x

    model, params, buffers, _ = both(Counter)
    _, after = model.apply(params, buffers, torch.ones(4), train=True)
    assert (float(buffers["total"]), float(after["total"])) == (0.0, 4.0)


@pytest.mark.parametrize("name", BUILDS)
def test_init_is_torchs_own_and_follows_the_key(name):
    model = functional.from_module(BUILDS[name])
    with rng.seeded(rng.key(5)):
        module = BUILDS[name]()
    params, buffers = assert_pure(model.init, rng.key(5))
    assert_close_tree(params, dict(module.named_parameters()), rtol=0.0)
    assert_close_tree(buffers, dict(module.named_buffers()), rtol=0.0)
    assert any(not torch.equal(value, params[key]) for key, value in model.init(rng.key(6))[0].items())


def test_tied_weights_are_one_parameter_with_the_sum_of_both_gradients():
    model, params, buffers, module = both(lambda: Tied().double())
    assert "second.weight" not in params
    x = inputs("tied")
    found = torch.func.grad(lambda p: model.apply(p, buffers, x, train=True)[0].square().sum())(params)
    module(x).square().sum().backward()
    assert_close_tree(found, {name: value.grad for name, value in module.named_parameters()}, rtol=1e-13)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ["0.weight", "1.bias", "1.running_mean", "1.num_batches_tracked"])
def test_a_missing_key_is_refused(name, train):
    model, params, buffers, _ = both(convnet)
    params, buffers = ({k: v for k, v in part.items() if k != name} for part in (params, buffers))
    with pytest.raises(RuntimeError, match=f"Missing key.*{name}"):
        model.apply(params, buffers, inputs("batchnorm"), train=train)


@pytest.mark.parametrize("train", [True, False])
def test_an_extra_key_is_refused(train):
    model, params, buffers, _ = both(mlp)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*stray"):
        model.apply({**params, "stray": torch.ones(1)}, buffers, inputs("mlp"), train=train)


def dropout():
    return nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5))


def test_dropout_is_a_function_of_the_key():
    model, params, buffers, _ = both(dropout)
    x = torch.ones(3, 4)

    def draw(key):
        return assert_pure(lambda p, k: model.apply(p, buffers, x, train=True, key=k)[0], params, key)

    first, other = draw(rng.key(1)), draw(rng.key(2))
    assert not torch.equal(first, other)
    assert 0.3 < float((first == 0.0).double().mean()) < 0.7


def test_dropout_is_off_in_evaluation():
    model, params, buffers, module = both(dropout)
    x = torch.ones(3, 4)
    logits, _ = assert_pure(lambda p, k: model.apply(p, buffers, x, train=False, key=k), params, rng.key(1))
    assert_close_tree(logits, module.eval()(x).detach(), rtol=0.0)


def test_from_module_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    functional.from_module(mlp)
    assert torch.equal(torch.get_rng_state(), before)


def test_cast_changes_only_floating_point_values():
    model = functional.from_module(lambda: convnet().float())
    params, _ = model.init(rng.key(0))
    wide, wide_buffers = functional.cast(model, torch.float64).init(rng.key(0))
    assert all(value.dtype == torch.float64 for value in wide.values())
    assert wide_buffers["1.num_batches_tracked"].dtype == torch.int64
    assert_close_tree(wide, params, rtol=0.0)
    logits, _ = functional.cast(model, torch.float64).apply(wide, wide_buffers, inputs("batchnorm"), train=True)
    assert logits.dtype == torch.float64


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", BUILDS)
def test_gradient_and_directional_derivative_under_transforms(name, train):
    """Forward and reverse mode, BatchNorm in training mode included, against finite differences of the module."""
    model, params, buffers, module = both(BUILDS[name])
    x = inputs(name)

    def loss(p):
        logits, after = model.apply(p, buffers, x, train=train)
        return logits.sin().sum(), after

    def by_torch(p):
        module.load_state_dict({**p, **buffers}, strict=False)
        with torch.no_grad():
            return module.train(train)(x).sin().sum()

    expected = finite_differences(by_torch, params)
    grads, _ = torch.func.grad(loss, has_aux=True)(params)
    assert_close_tree(grads, expected, rtol=1e-7, atol=1e-9)
    direction = {key: torch.cos(value + 1.0) for key, value in params.items()}
    _, slope, _ = torch.func.jvp(loss, (params,), (direction,), has_aux=True)
    assert_close_tree(slope, sum((expected[key] * direction[key]).sum() for key in params), rtol=1e-7)


def test_vmap_over_stacked_parameters_equals_a_loop():
    model = functional.from_module(mlp)
    every = [model.init(rng.key(seed)) for seed in range(4)]
    stacked = {name: torch.stack([params[name] for params, _ in every]) for name in every[0][0]}
    x = inputs("mlp")
    found = torch.vmap(lambda params: model.apply(params, {}, x, train=True)[0])(stacked)
    assert_close_tree(found, torch.stack([model.apply(p, b, x, train=True)[0] for p, b in every]), rtol=1e-14)


class Counting(nn.Module):
    """A buffer that requires a gradient, and one that becomes what a parameter makes of it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("rate", torch.tensor(0.5, requires_grad=True))
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x):
        self.total = self.total + (self.weight * self.rate * x).sum()
        return self.weight * self.rate * x


def test_what_comes_from_a_model_is_data_but_for_the_logits():
    model = functional.from_module(Counting)
    params, buffers = model.init(rng.key(0))
    assert not any(value.requires_grad for value in (*params.values(), *buffers.values()))
    params = {"weight": params["weight"].requires_grad_()}
    logits, after = model.apply(
        params, {**buffers, "rate": buffers["rate"].requires_grad_()}, torch.ones(4), train=True
    )
    assert logits.requires_grad
    assert float(after["total"]) == 2.0
    assert not any(value.requires_grad for value in after.values())
    logits.sum().backward()
    assert (float(params["weight"].grad), buffers["rate"].grad) == (2.0, None)


def test_a_module_that_is_the_same_every_time_is_left_alone():
    module = nn.Sequential(nn.Linear(4, 3).requires_grad_(False), nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = functional.from_module(lambda: module)
    params, buffers = model.init(rng.key(0))
    for value in (*params.values(), *buffers.values()):
        value.fill_(7)
    assert_close_tree(dict(module.state_dict()), before, rtol=0.0)


def test_a_pass_copies_statistics_and_no_frozen_weight():
    """Which may be most of a network. Statistics are written on, before a pass and after it."""
    model, params, buffers, _ = both(lambda: nn.Sequential(nn.Linear(4, 3).requires_grad_(False), nn.BatchNorm1d(3)))
    _, after = model.apply(params, buffers, torch.randn(6, 4), train=True)
    same = {name for name, value in after.items() if value.data_ptr() == buffers[name].data_ptr()}
    assert same == {"0.weight", "0.bias"}


def test_a_frozen_weight_is_a_constant_whatever_it_requires():
    model, params, buffers, _ = both(lambda: nn.Sequential(nn.Linear(4, 3).requires_grad_(False), nn.Linear(3, 2)))
    leaves = {name: value.requires_grad_() for name, value in (params | buffers).items()}
    logits, _ = model.apply(params, buffers, inputs("mlp").float(), train=True)
    logits.square().sum().backward()
    assert {name for name, value in leaves.items() if value.grad is not None} == {"1.weight", "1.bias"}


def test_a_pass_takes_tensors_of_inference_mode():
    """They have no count of how often they were written on."""
    model, params, buffers, module = both(mlp)
    with torch.inference_mode():
        params = {name: value.clone() for name, value in params.items()}
        logits, _ = model.apply(params, buffers, inputs("mlp"), train=False)
    assert_close_tree(logits, module(inputs("mlp")), rtol=1e-14)


class Open(nn.Module):
    """One input that is required, and room for more."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x, shift=0.0, *more, **named):
        assert not more, "a tuple was taken apart"
        assert not named, "a dict was taken apart"
        return self.scale * (x["named"] if isinstance(x, dict) else x[0] if isinstance(x, tuple) else x) + shift


@pytest.mark.parametrize("wrapped", [lambda x: x, lambda x: (x, x), lambda x: {"named": x}])
def test_one_required_input_is_one_input(wrapped):
    model, params, buffers, _ = both(Open)
    logits, _ = model.apply(params, buffers, wrapped(torch.ones(3)), train=True)
    assert torch.equal(logits, torch.full((3,), 2.0))
    logits, _ = model.apply(params, buffers, {"x": wrapped(torch.ones(3)), "shift": 1.0}, train=True)
    assert torch.equal(logits, torch.full((3,), 3.0))


def test_a_pass_is_compiled_as_one_graph():
    """What it checks about itself when it is interpreted would break the graph."""
    model, params, buffers, _ = both(mlp)

    def passed(params, x):
        return model.apply(params, buffers, x, train=True)[0]

    compiled = torch.compile(passed, backend="eager", fullgraph=True)
    assert_close_tree(compiled(params, inputs("mlp")), passed(params, inputs("mlp")), rtol=1e-14)
