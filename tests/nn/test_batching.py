"""Layers with running statistics under `vmap` over data: each task by itself in a loop is the truth."""

import pytest
import torch
from asserts import assert_close_tree, relative_error
from torch import nn

from metapl.core import inside, rng, tree
from metapl.core.unrolling import unroll
from metapl.nn import batching, functional
from metapl.registry.errors import InputError

TASKS = 3


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


def channels():
    return nn.Sequential(nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.Flatten(), nn.Linear(6, 2))


CASES = {"batch": (network, (8, 3)), "instance": (channels, (5, 2, 3))}


def made(name):
    build, shape = CASES[name]
    model = functional.cast(functional.from_module(build), torch.float64)
    params, buffers = model.init(rng.key(0))
    return model, params, buffers, rng.normal(rng.key(1), (TASKS, *shape), torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_each_task_has_its_statistics(name):
    model, params, buffers, xs = made(name)
    before = {key: value.clone() for key, value in buffers.items()}
    outputs, after = torch.vmap(lambda x: model.apply(params, buffers, x, train=True))(xs)
    for task, x in enumerate(xs):
        alone, statistics = model.apply(params, buffers, x, train=True)
        assert_close_tree(outputs[task], alone, rtol=1e-12, atol=1e-14)
        assert_close_tree({key: value[task] for key, value in after.items()}, statistics, rtol=1e-12, atol=1e-14)
    assert all(torch.equal(buffers[key], value) for key, value in before.items())
    if name == "batch":  # instance norm has a counter too, and does not count
        assert after["1.num_batches_tracked"].tolist() == [1] * TASKS


@pytest.mark.parametrize("name", CASES)
def test_steps_within_each_task(name):
    """Two inner steps that carry the statistics, differentiated in where they begin."""
    model, params, buffers, xs = made(name)

    def loss(p, b, x):
        output, b = model.apply(p, b, x, train=True)
        return (output**2).mean(), b

    def of_task(p, x):
        def step(carry, x):
            p, b = carry
            grads, b = inside.gradient(loss, p, b, x)
            return tree.sub(p, tree.scale(0.1, grads)), b

        return loss(*unroll(step, (p, buffers), [x, x]), x)[0]

    found = torch.func.grad(lambda p: torch.vmap(lambda x: of_task(p, x))(xs).sum())(params)
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    expected = torch.autograd.grad(sum(of_task(leaves, x) for x in xs), list(leaves.values()))
    assert relative_error(list(found.values()), list(expected)) <= 1e-10


def test_the_names_are_those_of_running_statistics():
    names = batching.statistics(network())
    assert names == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert batching.statistics(nn.Sequential(nn.LayerNorm(3), nn.BatchNorm1d(3, track_running_stats=False))) == set()


def test_without_a_vmap_nothing_is_copied():
    buffers = {"mean": torch.ones(2)}
    assert batching.batched_as(buffers, torch.ones(3))["mean"] is buffers["mean"]


def test_a_module_that_torch_cannot_take_is_told_so_and_another_error_is_left_alone():
    model = functional.from_module(lambda: nn.LSTM(3, 4))
    params, _ = model.init(rng.key(0))

    def run(x):
        return model.apply(params, {}, x, train=True)[0][0]

    with pytest.raises(
        InputError, match=r"^torch cannot take this module under vmap \([^\n]*\): loop over the members"
    ):
        torch.vmap(run)(torch.ones(2, 5, 1, 3))
    with pytest.raises(RuntimeError, match="input") as found:
        torch.vmap(run)(torch.ones(2, 5, 1, 4))
    assert not isinstance(found.value, InputError)
