"""Networks whose passes are shared out among processes, against the same pass by one process."""

from functools import partial

import pytest
import torch
from asserts import assert_close_tree, assert_says
from together import together
from torch import nn

from metapl.core import autodiff, rng
from metapl.core.collectives import ALONE, Processes
from metapl.nn import functional
from metapl.nn.microbatch import in_parts
from metapl.nn.shared_out import evaluated_by, shared_out


def perceptron():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 2))


def normalised():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


def normalised_images():
    norm = nn.BatchNorm1d(2, momentum=None)
    return nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 2, 2), norm, nn.Flatten(), nn.Linear(4, 2))


class Mine(nn.Module):
    """A buffer of its own that follows the batch, as a user writes one, and one that never changes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("constant", torch.full((3,), 0.1))

    def forward(self, x):
        self.seen = 0.9 * self.seen + 0.1 * x.mean(0)
        return self.linear(x * self.constant)


# The network, its options, how one process does the same, and the size of the batch.
CASES = {
    "dropout": (perceptron, {}, lambda model: model, 7),
    "recomputed": (perceptron, {"microbatch": 2}, lambda model: model, 7),
    "fewer examples than processes": (perceptron, {}, lambda model: model, 1),
    "synchronised": (normalised, {}, lambda model: model, 7),
    "synchronised images": (normalised_images, {}, lambda model: model, 5),
    "groups": (normalised, {"group": 3}, lambda model: in_parts(model, 3, recompute=False), 12),
    "unequal groups": (normalised, {"group": 3}, lambda model: in_parts(model, 3, recompute=False), 8),
    "groups recomputed": (normalised, {"group": 2, "microbatch": 2}, lambda model: in_parts(model, 2), 8),
    "one group": (normalised, {"group": 8}, lambda model: in_parts(model, 8, recompute=False), 8),
    "statistics of each process": (normalised, {"groups": 2}, lambda model: in_parts(model, 0, groups=2), 7),
    "more groups than examples": (normalised_images, {"groups": 9}, lambda model: in_parts(model, 0, groups=9), 4),
    "buffers of a user": (Mine, {}, lambda model: model, 6),
}


def everything(model, size, key):
    """Logits, buffers and the gradients of a function of them with respect to parameters and inputs."""
    params, buffers = functional.cast(model, torch.float64).init(rng.key(1))
    x = rng.normal(rng.key(2), (size, 3), torch.float64)
    cotangent = rng.normal(rng.key(3), (size, 2), torch.float64)

    def logits(at):
        return model.apply(at["params"], buffers, at["x"], train=True, key=key)

    moving = {name: value.clone().requires_grad_() for name, value in params.items()}
    _, kept = model.apply(moving, buffers, x, train=True, key=key)
    assert not any(value.requires_grad for value in kept.values())
    found, after, back = autodiff.vjp(logits, {"params": params, "x": x})
    without = model.apply(params, buffers, x, train=True, key=key)[0]
    return {"logits": found, "buffers": after, "grads": back(cotangent), "again": without}


def shared(processes, name):
    build, options, _, size = CASES[name]
    model = functional.from_module(build)
    return everything(shared_out(model, processes, **options), size, rng.key(4))


@pytest.fixture(scope="module")
def found():
    return together(2, lambda processes: {name: shared(processes, name) for name in CASES})


@pytest.mark.parametrize("name", list(CASES))
def test_it_is_the_pass_of_one_process(found, name):
    if name == "fewer examples than processes":
        assert CASES[name][3] < len(found)
    build, _, same, size = CASES[name]
    expected = everything(same(functional.from_module(build)), size, rng.key(4))
    for one in found:
        assert_close_tree(one[name], expected, rtol=1e-12, atol=1e-15)


def test_constant_buffers_stay_what_they_are_to_the_last_bit(found):
    for one in found:
        assert torch.equal(one["buffers of a user"]["buffers"]["constant"], torch.full((3,), 0.1).double())


HERE = Processes(0, 2, lambda flat: flat)
"""One that meets no other."""


def test_frozen_parameters_are_not_summed():
    summed = []

    def build():
        module = normalised()
        module[0].requires_grad_(False)
        return module

    def reduce(flat):
        summed.append(len(flat))
        return flat

    model = shared_out(functional.from_module(build), Processes(0, 2, reduce), group=4)
    params, buffers = model.init(rng.key(0))
    _, after = model.apply(params, buffers, torch.ones(8, 3), train=True)
    assert summed == [8 * 2 + 2 * 4]  # logits, and BatchNorm's mean and variance
    assert not any(value.requires_grad for value in after.values())


PASSES = []


class Counting(nn.Linear):
    def forward(self, x):
        PASSES.append(len(x))
        return super().forward(x)


@pytest.mark.parametrize(("microbatch", "passes"), [(0, [4]), (2, [2, 2, 2, 2]), (4, [4])])
def test_microbatches_are_made_again_on_the_way_back(microbatch, passes):
    model = shared_out(functional.from_module(lambda: Counting(3, 2)), HERE, microbatch=microbatch)
    params, buffers = model.init(rng.key(0))
    PASSES.clear()
    logits, after = model.apply(
        {name: value.requires_grad_() for name, value in params.items()}, buffers, torch.ones(8, 3), train=True
    )
    logits.sum().backward()
    assert passes == PASSES
    assert not any(value.requires_grad for value in after.values())


def test_evaluation_is_shared_out_too():
    model = functional.from_module(normalised)
    params, buffers = functional.cast(model, torch.float64).init(rng.key(1))
    x = rng.normal(rng.key(2), (5, 3), torch.float64)
    expected = model.apply(params, buffers, x, train=False)

    def evaluate(processes):
        divided = evaluated_by(model, processes)
        passes = [divided.apply(params, buffers, part, train=False) for part in (x, x[:1])]
        whole = shared_out(model, processes).apply(params, buffers, x, train=False)
        return *passes, whole

    for whole, one, plain in together(2, evaluate):
        assert_close_tree(whole, expected, rtol=1e-14)
        assert_close_tree(one[0], expected[0][:1], rtol=1e-14)
        assert_close_tree(plain, expected, rtol=0.0)
    assert evaluated_by(model, ALONE) is model


def test_too_few_examples_for_shared_statistics_are_refused():
    model = shared_out(functional.from_module(normalised), Processes(0, 4, lambda flat: flat))
    params, buffers = model.init(rng.key(0))
    apply = partial(model.apply, params, buffers, torch.zeros(3, 3), train=True)
    assert_says(apply, "4 processes", "3 examples")


def test_one_process_shares_nothing_out():
    with pytest.raises(ValueError, match="several"):
        shared_out(functional.from_module(normalised), ALONE)
