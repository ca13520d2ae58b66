"""The estimator `higher`: equal to ours where that library is right, refused where it is not."""

import itertools

import pytest
import torch
from asserts import assert_close_tree
from problems import OPTIMIZERS, Rule, estimate, make

from metapl import optim
from metapl.core.types import Optimizer
from metapl.registry.errors import InputError


def rule(build, lr, **options):
    return Rule(lambda: build(lr, **options), None)


RIGHT = {
    **{name: OPTIMIZERS[name] for name in ("sgd", "momentum", "nesterov", "clipped", "cosine")},
    "dampened": rule(optim.sgd, 0.2, momentum=0.9, dampening=0.3),
    "adagrad": rule(optim.adagrad, 0.1, lr_decay=0.1, weight_decay=0.01, initial_accumulator_value=0.1),
    "adadelta": rule(optim.adadelta, 1.0, rho=0.9, weight_decay=0.01),
    "adamax": rule(optim.adamax, 0.05, betas=(0.8, 0.95), eps=1e-3),
    "rmsprop": rule(optim.rmsprop, 0.05, momentum=0.9, eps=1e-3, weight_decay=0.01),
}


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("network", ["mlp", "dead-input", "batchnorm", "tied", "layernorm"])
@pytest.mark.parametrize("name", RIGHT)
def test_agrees_where_it_is_right(name, network, steps):
    case = make(network, RIGHT[name], steps=steps, batch=3)
    theirs, ours = estimate(case, "higher"), estimate(case, "unroll")
    assert_close_tree(theirs._replace(info={}), ours, rtol=1e-12)


@pytest.mark.parametrize("labels", ["sampled", "argmax"])
def test_agrees_for_drawn_labels(labels):
    case = make("mlp", "nesterov", labels, steps=3)
    assert_close_tree(estimate(case, "higher").grads, estimate(case, "unroll").grads, rtol=1e-12)


def test_a_tensor_as_a_hyperparameter():
    lr = torch.tensor(0.2, dtype=torch.float64)
    numbers = rule(optim.sgd, 0.2, momentum=0.9)
    tensors = rule(optim.sgd, lr, momentum=torch.tensor(0.9, dtype=torch.float64))
    one, two = (estimate(make("mlp", kind, steps=3), "higher").grads for kind in (numbers, tensors))
    assert_close_tree(one, two, rtol=1e-12)


REFUSED = {
    "adam": (lambda: optim.adam(0.1), "has no adam, or has it wrong"),
    "adamw": (lambda: optim.adamw(0.1), "has no adamw"),
    "lion": (lambda: optim.lion(0.1), "has no lion"),
    "centred": (lambda: optim.rmsprop(0.1, centered=True), "NaN where a gradient is exactly zero"),
    "maximised": (lambda: optim.sgd(-0.1, maximize=True), "sgd with maximize wrong"),
    "grouped": (lambda: optim.groups(lambda name: "all", {"all": optim.sgd(0.1)}), "has no groups"),
    "another link": (lambda: optim.chain(optim.sgd(0.1), optim.sgd(0.1)), "takes clipping links"),
    "unknown": (lambda: Optimizer(*optim.sgd(0.1)[:2]), "an optimiser without a `rule`"),
}


@pytest.mark.parametrize(("name", "steps"), list(itertools.product(REFUSED, [1, 2])))
def test_refuses_what_it_gets_wrong(name, steps):
    build, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        estimate(make("mlp", Rule(build, None), steps=steps, warm=False), "higher")
