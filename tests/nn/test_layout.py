"""Images with the channels innermost: the same function and derivatives, and that every layer sees the layout."""

from functools import partial

import pytest
import torch
from torch import nn

from metapl import estimators, models, optim
from metapl.core import losses, rng, targets
from metapl.core.types import Instance, Problem, TrainState
from metapl.nn import functional
from metapl.nn.layout import channels_last

LAST = {"memory_format": torch.channels_last}


def plain(build):
    """The model, and its parameters and buffers, in double precision."""
    model = functional.cast(functional.from_module(build), torch.float64)
    return model, *model.init(rng.key(0))


def images(*shape):
    return rng.normal(rng.key(1), shape, torch.float64)


class Seeing(nn.Module):
    """Says of what it is given whether the channels are innermost."""

    def forward(self, x):
        return x + 10.0 * x.is_contiguous(**LAST) + 100.0 * x.is_contiguous()


def test_the_layers_see_channels_innermost():
    model, params, buffers = plain(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Seeing()))
    x = images(2, 3, 6, 6)
    before, _ = model.apply(params, buffers, x, train=True)
    after, _ = channels_last(model).apply(params, buffers, x, train=True)
    torch.testing.assert_close(after, before - 90.0, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: nn.Sequential(nn.Flatten(), Seeing(), nn.Linear(108, 2)), (2, 3, 6, 6)),
        (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), Seeing()), (2, 3, 6)),
    ],
)
def test_what_has_no_convolution_in_the_plane_is_passed_as_before(build, shape):
    model, params, buffers = plain(build)
    x = images(*shape)
    expected, _ = model.apply(params, buffers, x, train=True)
    assert torch.equal(channels_last(model).apply(params, buffers, x, train=True)[0], expected)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "name", ["convnet:width=4,depth=1", "convnet:width=4,depth=1,norm=group", "wrn:depth=10,width=1"]
)
def test_values_statistics_and_gradients_are_those_of_the_network(name, train):
    model, params, buffers = plain(partial(models.build, name, (3, 8, 8), 4))
    x = images(6, 3, 8, 8)

    def loss(params, model):
        logits, after = model.apply(params, buffers, x, train=train)
        return logits.logsumexp(1).sum() - logits[:, 0].sum(), (logits, after)

    expected, found = (
        torch.func.grad_and_value(partial(loss, model=one), has_aux=True)(params)
        for one in (model, channels_last(model))
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def feedback(model, params, buffers, grad):
    def inner(params, buffers, targets, x):
        logits, buffers = model.apply(params, buffers, x, train=True)
        return losses.cross_entropy(logits, targets), buffers

    def outer(params, buffers, exam):
        x, y = exam
        return losses.cross_entropy(model.apply(params, buffers, x, train=True)[0], y).mean()

    rule = optim.sgd(0.1, momentum=0.9)
    theta, y = images(5, 4), torch.tensor([0, 1, 2])
    problem = Problem(inner, outer, rule, targets.SOFT)
    state = TrainState(params, buffers, rule.init(params))
    x = images(8, 3, 8, 8)
    instance = Instance(problem, [theta], state, [x[:5]], (x[5:], y), rng.key(2))
    return estimators.exact(route=grad).estimate(instance, ())[0].grads[0]


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("route", ["forward", "reverse"])
def test_exact_feedback_is_that_of_the_network(route, norm):
    model, params, buffers = plain(partial(models.build, f"convnet:width=4,depth=1,norm={norm}", (3, 8, 8), 4))
    expected, found = (feedback(one, params, buffers, route) for one in (model, channels_last(model)))
    assert expected.norm() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_forward_mode_goes_through_group_norm():
    model, params, buffers = plain(partial(models.build, "convnet:width=4,depth=1,norm=group", (3, 8, 8), 4))
    x = images(5, 3, 8, 8)

    def slope(model):
        return torch.func.jvp(lambda params: model.apply(params, buffers, x, train=True)[0], (params,), (params,))[1]

    torch.testing.assert_close(slope(channels_last(model)), slope(model), rtol=1e-9, atol=1e-11)


def test_members_of_a_vmap_are_passed_as_before():
    model, params, buffers = plain(partial(models.build, "convnet:width=4,depth=1,norm=group", (3, 8, 8), 4))
    x = images(2, 5, 3, 8, 8)

    def passes(model):
        return torch.vmap(lambda x: model.apply(params, buffers, x, train=True)[0])(x)

    assert torch.equal(passes(channels_last(model)), passes(model))
