"""Each pass runs on an instance of its own: against the module itself in plain torch."""

import copy
import weakref

import pytest
import torch
from asserts import assert_close_tree, assert_pure
from students import model_of
from torch import nn
from torch.nn.utils import prune

from metapl import optim
from metapl.core import losses, rng
from metapl.core.types import TrainState, Variables
from metapl.methods import base
from metapl.nn import functional

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- the builder's own module


class Parts(nn.Module):
    """Hooks, bound methods and lists that refer to other parts of the module."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.drop = nn.Linear(3, 4), nn.Linear(4, 2), nn.Dropout(0.5)
        self.blocks = [self.first, self.second]
        self.scale = self._scale
        self.first.register_forward_hook(lambda module, inputs, output: output + self.second.bias.sum())
        self.second.register_forward_pre_hook(self.before)

    def _scale(self):
        return self.first.weight.norm()

    def before(self, _module, inputs):
        return (inputs[0] * self.first.bias.mean(),)

    def forward(self, x):
        for block in self.blocks:
            x = block(x).tanh()
        return x / self.scale()


@pytest.mark.parametrize("fresh", [True, False])
def test_hooks_and_attributes_refer_to_the_instance(fresh):
    """Gradients through what hooks and closures look at, for a module made anew and for one that exists."""
    existing = Parts()
    before = copy.deepcopy(existing.state_dict())
    model = functional.from_module(Parts if fresh else lambda: existing)
    params, buffers = model.init(rng.key(1))
    params = {name: value + 0.1 for name, value in params.items()}
    module = Parts()
    module.load_state_dict(params)
    for train in (False, True):
        module.train(train)(X).square().sum().backward()
        found = torch.func.grad(lambda p, t=train: model.apply(p, buffers, X, train=t)[0].square().sum())(params)
        assert_close_tree(found, {name: value.grad for name, value in module.named_parameters()}, rtol=1e-5)
        module.zero_grad()
    assert_close_tree(existing.state_dict(), before, rtol=0.0)
    assert type(existing.drop) is nn.Dropout
    assert existing.training
    assert all(part is own for part, own in zip(existing.blocks, (existing.first, existing.second), strict=True))


def test_the_weights_of_the_structure_are_not_kept():
    made = []

    def build():
        module = nn.Linear(3, 2)
        made.append(weakref.ref(module.weight))
        return module

    functional.from_module(build)
    assert made[0]() is None


class FrozenStatistics(nn.Module):
    """BatchNorm that stays in evaluation mode, as in finetuning."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.norm(self.linear(x))


def pruned():
    return nn.Sequential(prune.l1_unstructured(nn.Linear(3, 4), "weight", amount=0.5), nn.Tanh(), nn.Linear(4, 2))


def legacy_weight_norm():
    with pytest.warns(FutureWarning):
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2))


def weight_norm():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4), dim=1), nn.Linear(4, 2))


def legacy_spectral_norm():
    return nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 4)), nn.Linear(4, 2))


BUILDS = [FrozenStatistics, pruned, legacy_weight_norm, weight_norm, legacy_spectral_norm, lambda: nn.GRU(3, 2)]


@pytest.mark.parametrize("build", BUILDS)
def test_modules_that_look_after_their_weights_themselves(build):
    model, params, buffers = model_of(build)
    module = build()
    module.load_state_dict({**params, **buffers})
    for train in (True, False, True):
        found, buffers = assert_pure(lambda p, b, t=train: model.apply(p, b, X, train=t), params, buffers)
        assert_close_tree(found, module.train(train)(X), rtol=1e-5)
        assert_close_tree(buffers, dict(module.named_buffers()), rtol=1e-5)


# ---------------------------------------------------------------- inputs and frozen parameters


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x, scale, *, shift=0.0):
        return self.linear(x) * scale + shift


def test_several_inputs_by_place_and_by_name():
    model, params, buffers = model_of(Several)
    expected = nn.functional.linear(X, params["linear.weight"], params["linear.bias"]) * 2.0
    assert_close_tree(model.apply(params, buffers, (X, 2.0), train=True)[0], expected, rtol=1e-6)
    named = {"x": X, "scale": 2.0, "shift": 1.0}
    assert_close_tree(model.apply(params, buffers, named, train=True)[0], expected + 1.0, rtol=1e-6)


class Pair(nn.Module):
    """One input that is a tuple, or a dict with other names."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x[0] if isinstance(x, tuple) else x["image"])


def test_one_input_that_is_a_tuple_or_a_dict():
    model, params, buffers = model_of(Pair)
    one, other = (model.apply(params, buffers, x, train=True)[0] for x in ((X, 1), {"image": X}))
    assert torch.equal(one, other)


def test_frozen_parameters_are_carried():
    def build():
        return nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))

    model, params, buffers = model_of(build)
    assert set(params) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    assert {"0.weight", "0.bias", "1.running_mean"} <= set(buffers)
    module = build()
    module.load_state_dict({**params, **buffers})
    rule = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 0.1, weight_decay=0.3)
    y = torch.tensor([0, 1, 1, 0, 1])
    trainable = base.Trainable(model, optim.chain(optim.clip_by_global_norm(0.1), optim.adamw(0.1, weight_decay=0.3)))
    state = TrainState(params, buffers, trainable.optimizer.init(params))
    average = Variables(params, buffers)

    def loss(params, buffers):
        logits, after = model.apply(params, buffers, X, train=True)
        return losses.cross_entropy(logits, y).mean(), after

    for step in range(3):
        rule.zero_grad()
        nn.functional.cross_entropy(module(X), y).backward()
        torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], 0.1)
        rule.step()
        grads, after = torch.func.grad(loss, has_aux=True)(state.params, state.buffers)
        state = base.apply_gradient(trainable.optimizer, state, grads, after)
        average = base.average(average, state, torch.tensor(step), 0.9)
    found = {**state.params, **state.buffers}
    assert_close_tree(found, {name: module.state_dict()[name] for name in found}, rtol=1e-5)
    assert torch.equal(state.buffers["0.weight"], buffers["0.weight"])
    assert torch.equal(average.buffers["0.weight"], buffers["0.weight"])
