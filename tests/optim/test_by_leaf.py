"""A value for each parameter, against parameter groups of `torch.optim`; and hyperparameters that are in the state."""

import functools

import pytest
import torch
from asserts import assert_close_tree, assert_pure, finite_differences, relative_error

from metapl import optim
from metapl.core import rng, tree
from metapl.core.unrolling import unroll
from metapl.registry.errors import InputError

f64 = functools.partial(torch.tensor, dtype=torch.float64)
PARAMS = {"body": {"w": f64([1.0, -2.0]), "b": f64(0.5)}, "head": [f64([[0.3, 0.1]])]}
RATES = {"body": {"w": 0.1, "b": 0.02}, "head": [0.3]}
DECAYS = {"head": [0.2], "body": {"w": 0.0, "b": 0.1}}  # in another order
RULES = {
    "sgd": (optim.sgd, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (optim.adam, torch.optim.Adam, {"betas": (0.8, 0.9)}),
    "adamw": (optim.adamw, torch.optim.AdamW, {}),
    "rmsprop": (optim.rmsprop, torch.optim.RMSprop, {"alpha": 0.9, "centered": True}),
}
every_rule = pytest.mark.parametrize("name", RULES)


def gradients(step):
    return tree.map(lambda leaf: rng.normal(rng.fold_in(rng.key(7), step), leaf.shape, torch.float64), PARAMS)


def after(rule, steps=4):
    params, state = PARAMS, rule.init(PARAMS)
    for step in range(steps):
        updates, state = rule.update(gradients(step), state, params)
        params = tree.add(params, updates)
    return params


@every_rule
def test_a_value_for_each_parameter_is_a_parameter_group_of_torch(name):
    ours, theirs, options = RULES[name]
    leaves = [leaf.clone().requires_grad_() for leaf in tree.leaves(PARAMS)]
    structure = tree.flatten(PARAMS)[1]
    groups = [
        {"params": [leaf], "lr": rate, "weight_decay": decay}
        for leaf, rate, decay in zip(leaves, tree.leaves(RATES), structure.flatten_up_to(DECAYS), strict=True)
    ]
    stepper = theirs(groups, **options)
    for step in range(4):
        for leaf, grad in zip(leaves, tree.leaves(gradients(step)), strict=True):
            leaf.grad = grad
        stepper.step()
    found = after(ours(lr=RATES, weight_decay=DECAYS, **options))
    assert_close_tree(found, tree.unflatten([leaf.detach() for leaf in leaves], structure), rtol=1e-12)
    assert_close_tree(after(optim.injected(ours, lr=RATES, weight_decay=DECAYS, **options)), found, rtol=0.0)


@pytest.mark.parametrize("name", [*optim.OPTIMIZERS])
def test_one_value_for_all_is_the_rule_itself(name):
    constructor = optim.OPTIMIZERS[name]
    plain = after(constructor(lr=0.05))
    assert_close_tree(after(constructor(lr=tree.map(lambda _: 0.05, PARAMS))), plain, rtol=1e-14)
    assert_close_tree(after(optim.injected(constructor, lr=0.05)), plain, rtol=1e-12)


def loss_after(hyperparameters, loop):
    """Of four steps on (w − 1)⁴, whose hyperparameters are in the state that the loop carries."""
    rule = optim.injected(optim.adam, lr=tree.map(lambda _: 1.0, PARAMS), betas=(0.0, 0.0))
    state = rule.init(PARAMS)._replace(hyperparameters=hyperparameters)

    def step(carry, _):
        params, state = carry
        grads = tree.map(lambda w: 4.0 * (w - 1.0) ** 3, params)
        updates, state = rule.update(grads, state, params)
        return tree.add(params, updates), state

    params, _ = loop(step, (PARAMS, state), [()] * 4)
    return tree.dot(params, params)


def plainly(step, carry, inputs):
    for one in inputs:
        carry = step(carry, one)
    return carry


@pytest.mark.parametrize("method", ["reverse", "replay"])
def test_what_is_in_the_state_is_differentiated(method):
    given = {"lr": tree.map(f64, RATES), "betas": (f64(0.7), f64(0.9))}
    found = torch.func.grad(lambda given: loss_after(given, functools.partial(unroll, method=method)))(given)
    assert relative_error(found, finite_differences(lambda given: loss_after(given, plainly), given)) <= 1e-8


def test_the_state_is_of_tensors_and_switches_stay_outside():
    state = optim.injected(optim.sgd, lr=0.1, momentum=0.9, nesterov=True).init(PARAMS)
    assert all(isinstance(leaf, torch.Tensor) for leaf in tree.leaves(state))
    assert sorted(state.hyperparameters) == ["lr", "momentum"]
    scheduled = optim.injected(optim.sgd, lr=optim.cosine(0.1, 10), momentum=0.9)
    assert_close_tree(after(scheduled), after(optim.sgd(optim.cosine(0.1, 10), momentum=0.9)), rtol=1e-14)


def test_it_is_pure():
    for rule in (optim.adam(RATES), optim.injected(optim.adam, lr=RATES)):
        assert_pure(rule.update, gradients(0), rule.init(PARAMS), PARAMS)


def test_another_structure_is_named():
    with pytest.raises(
        InputError, match=r"^sgd\(lr=…\) is {'body': \*}, the parameters are {'body': {'w': \*.*: give one"
    ):
        optim.sgd({"body": 0.1}).init(PARAMS)


def test_several_numbers_are_those_of_a_single_tensor():
    """Of two rates for two parameters each would have both, by broadcasting."""
    two = torch.tensor([0.1, 0.2])
    for optimizer in (optim.sgd(two), optim.adamw(0.1, weight_decay=two), optim.injected(optim.sgd, lr=two)):
        with pytest.raises(InputError, match=r"has several numbers.*a dict of them shaped as.*\{'w': \*, 'b': \*\}$"):
            optimizer.init({"w": torch.ones(3, 2), "b": torch.ones(2)})
    updates, _ = optim.sgd(two).update(torch.ones(2), optim.sgd(two).init(two), two)
    assert torch.equal(updates, -two)
    optim.adam(0.1, betas=torch.tensor([0.9, 0.99])).init({"w": two})


def test_hyperparameters_of_another_form_are_named():
    rule = optim.injected(optim.sgd, lr=0.1)
    state = rule.init(PARAMS)._replace(hyperparameters={"lr": tree.map(f64, RATES)})
    with pytest.raises(
        InputError, match=r"^injected: the state has hyperparameters {'lr': {.*, it began with {'lr': \*}$"
    ):
        rule.update(gradients(0), state, PARAMS)


def test_a_gradient_that_is_none_or_missing_is_named():
    params = {"a": f64([1.0, 2.0]), "b": f64(3.0)}
    for rule in (optim.adam(0.1), optim.adam({"a": 0.1, "b": 0.1})):
        with pytest.raises(
            InputError, match=r"^the gradient of a parameter of shape \[\] is None, .*materialize_grads"
        ):
            rule.update({"a": params["a"], "b": None}, rule.init(params), params)
    rule = optim.adam(0.1)
    with pytest.raises(InputError, match=r"^gradients {'a': \*} and parameters {'a': \*, 'b': \*} differ in structure"):
        rule.update({"a": params["a"]}, rule.init(params), params)


def test_a_pair_of_dicts_is_no_dict_of_pairs():
    params = {"w": f64([1.0, -2.0]), "b": f64(0.5)}
    optim.adam(0.1, betas=dict.fromkeys(params, (0.8, 0.99))).init(params)
    with pytest.raises(InputError, match=r"^adam\(betas=…\) is a pair with a dict in it: give a dict with a pair for"):
        optim.adam(0.1, betas=(dict.fromkeys(params, 0.8), 0.99))
