"""Groups of parameters against `torch.optim`'s, and against one torch optimiser for each group."""

import pytest
import torch
from asserts import assert_close_tree, assert_pure, finite_differences
from steps import gradient, run_ours, run_torch, score, start
from torch import nn

from metapl import optim
from metapl.core import tree
from metapl.registry.errors import InputError

FAST, SLOW = {"lr": 0.3, "weight_decay": 0.0}, {"lr": 0.05, "weight_decay": 0.2}
SETTINGS = {
    "sgd": ({"momentum": 0.9}, {"momentum": 0.5, "dampening": 0.1}),
    "adam": ({"betas": (0.5, 0.8)}, {"eps": 1e-3}),
    "adagrad": ({"lr_decay": 0.1}, {"eps": 1e-3}),
}
CONSTRUCTORS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}


def assign(name):
    return "matrix" if name == "w" else "rest"


def torchs(constructor, matrix, rest):
    """`start()` lists w first."""

    def build(params):
        return constructor([{"params": params[:1], **matrix}, {"params": params[1:], **rest}])

    return build


@pytest.mark.parametrize("name", SETTINGS)
def test_groups_equal_torchs(name):
    one, other = ({**a, **b} for a, b in zip((FAST, SLOW), SETTINGS[name], strict=True))
    ours = optim.groups(assign, {"matrix": optim.OPTIMIZERS[name](**one), "rest": optim.OPTIMIZERS[name](**other)})
    expected = run_torch(torchs(CONSTRUCTORS[name], one, other), start())
    assert_close_tree(run_ours(ours, start()), expected, rtol=1e-12)


def test_groups_of_two_methods_equal_one_torch_optimiser_each():
    class Both:
        def __init__(self, params):
            self.parts = torch.optim.SGD(params[:1], 0.1, momentum=0.9), torch.optim.Adam(params[1:], 0.2)

        def step(self):
            for part in self.parts:
                part.step()

    ours = optim.groups(assign, {"rest": optim.adam(0.2), "matrix": optim.sgd(0.1, momentum=0.9)})
    assert_close_tree(run_ours(ours, start()), run_torch(Both, start()), rtol=1e-12)


@pytest.mark.parametrize("inside", [False, True])
def test_clipping_is_over_the_group_inside_and_over_all_outside(inside):
    def clip(optimizer, step):
        every = [group["params"] for group in optimizer.param_groups]
        for params in every if inside else [every[0] + every[1]]:
            nn.utils.clip_grad_norm_(params, 0.3)

    link = optim.clip_by_global_norm(0.3)
    rules = {"matrix": optim.sgd(**FAST), "rest": optim.sgd(**SLOW)}
    clipped = optim.groups(assign, {label: optim.chain(link, rule) for label, rule in rules.items()})
    ours = clipped if inside else optim.chain(link, optim.groups(assign, rules))
    expected = run_torch(torchs(torch.optim.SGD, FAST, SLOW), start(), before_step=clip)
    assert_close_tree(run_ours(ours, start()), expected, rtol=1e-12)


def test_derivative_in_each_groups_hyperparameters():
    at = [{key: torch.tensor(value, dtype=torch.float64) for key, value in group.items()} for group in (FAST, SLOW)]

    def ours(groups):
        rules = {
            label: optim.sgd(momentum=0.9, **values) for label, values in zip(("matrix", "rest"), groups, strict=True)
        }
        return score(run_ours(optim.groups(assign, rules), start(), steps=3))

    def theirs(groups):
        groups = [{key: float(value) for key, value in group.items()} for group in groups]
        return score(run_torch(torchs(lambda g: torch.optim.SGD(g, momentum=0.9), *groups), start(), steps=3))

    expected = finite_differences(theirs, at)
    assert all(abs(value) > 1e-3 for value in tree.leaves(expected))
    assert_close_tree(torch.func.grad(ours)(at), expected, rtol=1e-6)


def test_each_group_follows_its_own_schedule():
    rules = {"matrix": optim.sgd(lambda step: 0.1 / (1.0 + step)), "rest": optim.sgd(optim.constant(0.2))}

    def schedule(optimizer, step):
        optimizer.param_groups[0]["lr"] = 0.1 / (1.0 + step)

    build = torchs(torch.optim.SGD, {"lr": 0.1}, {"lr": 0.2})
    ours = run_ours(optim.groups(assign, rules), start())
    assert_close_tree(ours, run_torch(build, start(), before_step=schedule), rtol=1e-7)


def test_groups_are_pure_and_keep_the_order_of_the_gradients():
    optimizer, params = optim.groups(assign, {"rest": optim.adam(), "matrix": optim.sgd(0.1, momentum=0.9)}), start()
    state = assert_pure(optimizer.init, params)
    _, state = assert_pure(optimizer.update, gradient(params, 0), state, params)
    grads = gradient(params, 1)
    # The groups interleave, so that putting one after the other would not do.
    turned = {name: grads[name] for name in ("b", "w", "scalar")}
    expected, _ = optimizer.update(grads, state, params)
    found, after = assert_pure(optimizer.update, turned, dict(reversed(state.items())), params)
    assert list(found) == list(turned)
    assert all(torch.equal(found[name], expected[name]) for name in params)
    assert {int(part.step) for part in after.values()} == {2}


def test_a_label_without_a_parameter_has_no_state():
    optimizer = optim.groups(lambda name: "all", {"all": optim.sgd(0.1), "none": optim.adam()})
    assert list(optimizer.init(start())) == ["all"]
    assert_close_tree(run_ours(optimizer, start()), run_ours(optim.sgd(0.1), start()), rtol=0.0)


def test_an_unknown_label_is_an_error_that_names_the_parameter():
    optimizer = optim.groups(lambda name: "bias" if name == "b" else "weight", {"weight": optim.sgd(0.1)})
    with pytest.raises(InputError, match="parameter 'b' is assigned to 'bias', which is not among 'weight'"):
        optimizer.init(start())


def test_the_rule_records_the_groups():
    rules = {"matrix": optim.sgd(0.1), "rest": optim.adam()}
    rule = optim.groups(assign, rules).rule
    rules.clear()
    assert rule.name == "groups"
    assert rule.options["assign"] is assign
    assert [part.rule.name for part in rule.options["rules"].values()] == ["sgd", "adam"]
