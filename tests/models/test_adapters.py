"""Low-rank adapters: against plain matrices, and the exact feedback against central differences in float64."""

import problems
import pytest
import torch
from asserts import assert_close_tree
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import optim
from metapl.core import rng
from metapl.core.types import Instance, TrainState
from metapl.models.adapters import lora, merge
from metapl.models.freezing import freeze
from metapl.nn import functional
from metapl.registry.errors import InputError

RANK, ALPHA, LR = 2, 3.0, 0.3


def plain():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def adapted():
    return lora(rank=RANK, alpha=ALPHA)(freeze(plain(), "!2"))


def moved(params):
    """Adapters after training: no longer zero."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: value + 0.5 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in params.items()
    }


def by_hand(params, buffers, x):
    """The same network of matrices."""
    change = params["0.parametrizations.weight.0.up"] @ params["0.parametrizations.weight.0.down"]
    weight = buffers["0.parametrizations.weight.original"] + ALPHA / RANK * change
    return torch.tanh(x @ weight.T + buffers["0.bias"]) @ params["2.weight"].T + params["2.bias"]


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_it_starts_as_the_network_that_it_adapts():
    model = functional.from_module(adapted)
    params, buffers = model.init(rng.key(0))
    with rng.seeded(rng.key(0)):
        truth = plain()
    assert torch.equal(model.apply(params, buffers, X, train=True)[0], truth(X))
    assert params["0.parametrizations.weight.0.down"].any()


def test_it_is_the_frozen_matrix_and_a_product_of_two_narrow_ones():
    model = functional.from_module(adapted)
    params, buffers = model.init(rng.key(0))
    names = {"0.parametrizations.weight.0.down": (RANK, 4), "0.parametrizations.weight.0.up": (5, RANK)}
    assert {name: tuple(value.shape) for name, value in params.items()} == {**names, "2.weight": (3, 5), "2.bias": (3,)}
    assert model.frozen == {"0.bias", "0.parametrizations.weight.original"}
    params = moved(params)
    assert_close_tree(model.apply(params, buffers, X, train=True)[0], by_hand(params, buffers, X), 1e-12)


def test_the_exact_feedback_through_adapters_is_that_of_central_differences():
    generator = torch.Generator().manual_seed(3)
    model = functional.from_module(adapted)
    params, buffers = model.init(rng.key(0))
    params = moved(params)
    theta = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    exam = (torch.randn(5, 4, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1]))

    def outcome(theta):
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        loss = -(torch.softmax(theta, 1) * F.log_softmax(by_hand(leaves, buffers, X), 1)).sum(1).mean()
        grads = torch.autograd.grad(loss, list(leaves.values()))
        after = {name: (value - LR * grad).detach() for (name, value), grad in zip(leaves.items(), grads, strict=True)}
        return F.cross_entropy(by_hand(after, buffers, exam[0]), exam[1])

    truth = torch.zeros_like(theta)
    for place in torch.cartesian_prod(torch.arange(6), torch.arange(3)):
        step = torch.zeros_like(theta)
        step[tuple(place)] = 1e-4
        truth[tuple(place)] = (outcome(theta + step) - outcome(theta - step)) / 2e-4
    network = problems.Variables(adapted)
    problem = problems.problem_of(model, network, optim.sgd(LR), "soft")
    state = TrainState(params, buffers, problem.optimizer.init(params))
    for text in ("exact", "unroll"):
        estimator = problems.build(text)
        found, _ = estimator.estimate(Instance(problem, [theta], state, [X], exam, rng.key(7)), estimator.init())
        assert_close_tree(found.grads[0], truth, 1e-6, atol=1e-10)
        assert found.state.buffers.keys() == buffers.keys()
        assert all(torch.equal(found.state.buffers[name], buffers[name]) for name in buffers)


def test_merged_it_is_a_plain_network_with_the_same_answers():
    module = adapted()
    with torch.no_grad():
        for value in module.parameters():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(4)))
    truth = module(X)
    merged = merge(module)
    assert merged.state_dict().keys() == plain().state_dict().keys()
    again = plain()
    again.load_state_dict(merged.state_dict())
    assert torch.equal(again(X), truth)


def test_convolutions_of_one_pixel_are_matrices_and_larger_ones_are_left_alone():
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 1, groups=2), nn.Flatten())
    x = torch.randn(2, 2, 5, 5)
    before = nn.Sequential(*module[:2])(x)
    lora(rank=8)(module.requires_grad_(False))
    assert {name for name, value in module.named_parameters() if value.requires_grad} == {
        "1.parametrizations.weight.0.down",
        "1.parametrizations.weight.0.up",
    }
    assert module[1].parametrizations["weight"][0].up.shape == (6, 4)  # the rank is at most the smaller side
    assert torch.equal(nn.Sequential(*module[:2])(x), before)


def test_layers_are_chosen_by_name_and_shared_weights_are_left_alone():
    module = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 3), "d": nn.Linear(3, 3)})
    module["d"].weight = module["c"].weight
    found = lora(layers="[ab]")(module.requires_grad_(False))
    assert {name.partition(".")[0] for name, value in found.named_parameters() if value.requires_grad} == {"a", "b"}


@pytest.mark.parametrize("options", [{"rank": 0}, {"alpha": 0.0}, {"alpha": float("nan")}])
def test_numbers_without_a_meaning_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        lora(**options)


def test_a_network_without_a_frozen_matrix_is_refused():
    with pytest.raises(InputError, match="no linear layer or 1×1 convolution is frozen"):
        lora()(plain())
    with pytest.raises(InputError, match="adapt: no name matches 'head': the network has 0"):
        lora(layers="head")(freeze(plain(), "!2"))
