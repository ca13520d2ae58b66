"""To and from `torch.optim`: whoever goes on, it is the same run."""

import higher
import pytest
import torch
from asserts import assert_close_tree, assert_pure
from steps import GRIDS, LONG, TORCHS, double_precision, go_on, go_on_torch, gradient, score, start
from torch import nn

from metapl import optim
from metapl.core import tree
from metapl.registry.errors import InputError

SOME = [(name, GRIDS[name][index]) for name in TORCHS for index in (0, len(GRIDS[name]) // 2 - 1, -1)]
CASES = [*SOME, ("adam", {"decoupled_weight_decay": True})]
BEFORE = 3


def module_of(values):
    return {name: nn.Parameter(value.clone()) for name, value in values.items()}


def values_of(named):
    return {name: parameter.detach().clone() for name, parameter in named.items()}


def torchs(name, named, options, before):
    """A torch optimiser that has run for some steps."""
    optimizer = TORCHS[name][1](named.values(), lr=0.1, **options)
    go_on_torch(optimizer, named, steps=range(before))
    return optimizer


def assert_same_run(named, theirs, ours, state, steps=5):
    """Both go on from here and arrive at the same place, in as many digits as float64 has."""
    expected, _ = go_on(ours, values_of(named), state, steps=range(BEFORE, BEFORE + steps))
    go_on_torch(theirs, named, steps=range(BEFORE, BEFORE + steps))
    assert_close_tree(values_of(named), expected, rtol=1e-12)


def assert_same_torch_state(one, other):
    """Of two torch optimisers: the same numbers, of the same dtypes, under the same keys."""
    (first, second) = (optimizer.state_dict()["state"] for optimizer in (one, other))
    assert first.keys() == second.keys()
    for index, held in first.items():
        assert held.keys() == second[index].keys()
        for key, value in held.items():
            assert value.dtype == second[index][key].dtype, key
            assert torch.equal(value, second[index][key]), key


@pytest.mark.parametrize("before", [0, BEFORE])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_from_torch_goes_on_as_torch(name, options, before):
    named = module_of(start())
    theirs = torchs(name, named, options, before)
    ours, state = optim.from_torch(theirs, named)
    assert state.step.dtype == torch.int64
    assert_same_run(named, theirs, ours, state, LONG.get(name, 5))


@pytest.mark.parametrize("before", [0, BEFORE])
@pytest.mark.parametrize(("name", "options"), CASES[:-1], ids=str)
def test_to_torch_goes_on_as_ours(name, options, before):
    ours, named = TORCHS[name][0](0.1, **options), module_of(start())
    params, state = go_on(ours, start(), ours.init(start()), steps=range(before))
    for key, value in params.items():
        named[key].data = value
    theirs = optim.to_torch(ours, named, state)
    assert type(theirs) is TORCHS[name][1]
    assert_same_run(named, theirs, ours, state, LONG.get(name, 5))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("name", "options"), CASES[:-1], ids=str)
def test_there_and_back_is_the_identity(name, options, wide):
    with double_precision() if wide else torch.enable_grad():
        named = module_of(start())
        theirs = torchs(name, named, options, BEFORE)
        ours, state = optim.from_torch(theirs, named)
        again = optim.to_torch(ours, named, state)
        assert_same_torch_state(theirs, again)
        ignored = {"params", "foreach", "fused", "capturable", "differentiable"}
        (first, second) = (
            {key: value for key, value in optimizer.param_groups[0].items() if key not in ignored}
            for optimizer in (theirs, again)
        )
        assert first == second


def test_a_float32_product_of_momenta_is_carried_on_as_in_torch():
    """Bit for bit, since 1 − μ₁…μₜ passes its rounding on to the updates."""
    named = module_of(start())
    theirs = torchs("nadam", named, {}, BEFORE)
    ours, state = optim.from_torch(theirs, named)
    assert state.product.dtype == torch.float32
    _, after = go_on(ours, values_of(named), state)
    go_on_torch(theirs, named)
    assert torch.equal(after.product, next(iter(theirs.state.values()))["mu_product"])


@pytest.mark.parametrize("before", [0, BEFORE])
@pytest.mark.parametrize("decoupled", [None, 0, 1])
def test_groups_go_both_ways(before, decoupled):
    """`decoupled`: the group of Adam that is an AdamW."""
    named = module_of(start())
    w, *rest = named.values()
    groups = [{"params": [w], "lr": 0.3, "weight_decay": 0.1}, {"params": rest, "betas": (0.5, 0.8), "amsgrad": True}]
    theirs = torch.optim.Adam(groups, lr=0.05)
    if decoupled is not None:
        theirs.param_groups[decoupled]["decoupled_weight_decay"] = True
        theirs.param_groups[decoupled]["weight_decay"] = 0.2
    go_on_torch(theirs, named, steps=range(before))
    ours, state = optim.from_torch(theirs, named)
    assert sorted(state) == ["0", "1"]
    again = optim.to_torch(ours, named, state)
    if before:
        assert_same_torch_state(theirs, again)
    assert (again.defaults["lr"], again.defaults["weight_decay"]) == (0.3, 0.2 if decoupled == 0 else 0.1)
    copies = module_of(values_of(named))
    assert_same_run(copies, optim.to_torch(ours, copies, state), ours, state)
    assert_same_run(named, theirs, ours, state)


@pytest.mark.parametrize("name", ["sgd", "adam", "nadam"])
def test_parameters_that_started_late_keep_their_own_count(name):
    """One that had no gradient at first has fewer steps behind it, or no momentum yet."""
    options = {"momentum": 0.9, "dampening": 0.5} if name == "sgd" else {}
    named = module_of(start())
    theirs = TORCHS[name][1](named.values(), lr=0.1, **options)
    go_on_torch(theirs, {key: value for key, value in named.items() if key != "b"}, steps=range(BEFORE))
    ours, state = optim.from_torch(theirs, named)
    assert sorted(int(part.step) for part in state.values()) == ([0, 1] if name == "sgd" else [0, BEFORE])
    assert_same_run(named, theirs, ours, state)


def test_what_a_scheduler_has_done_is_taken_over():
    named = module_of(start())
    theirs = torchs("sgd", named, {"momentum": 0.9}, 0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.5)
    go_on_torch(theirs, named, steps=range(BEFORE))
    scheduler.step()
    ours, state = optim.from_torch(theirs, named)
    assert ours.rule.options["lr"] == 0.05
    assert_same_run(named, theirs, ours, state)


@pytest.mark.parametrize("how", [{"foreach": True}, {"differentiable": True}, {"fused": True}], ids=str)
def test_how_torch_computes_is_left_behind(how):
    named = module_of(start())
    theirs = TORCHS["adam"][1](named.values(), lr=0.1, **how)
    ours, _ = optim.from_torch(theirs, named)
    assert ours.rule == optim.adam(0.1).rule


def test_tensor_hyperparameters_of_torch_become_numbers():
    named, lr = module_of(start()), torch.tensor(0.1, dtype=torch.float64)
    theirs = TORCHS["adam"][1](named.values(), lr=lr)
    ours, state = optim.from_torch(theirs, named)
    assert ours.rule == optim.adam(0.1).rule
    assert_same_run(named, theirs, ours, state)


@pytest.mark.parametrize("name", ["sgd", "adam", "nadam"])
def test_nothing_is_shared(name):
    """torch writes into its state; ours is a value."""
    named, options = module_of(start()), {"momentum": 0.9} if name == "sgd" else {}
    theirs = torchs(name, named, options, BEFORE)
    ours, state = optim.from_torch(theirs, named)
    again = optim.to_torch(ours, named, state)
    before = tree.map(torch.clone, state)
    for optimizer in (theirs, again):
        go_on_torch(optimizer, named)
    assert_close_tree(state, before, rtol=0.0)
    assert_pure(ours.update, gradient(start(), 0), state, start())


@pytest.mark.parametrize("name", ["sgd", "adam", "nadam"])
def test_numbers_are_cut_from_their_graph(name):
    """Of a state that somebody has differentiated, on either side."""
    named, options = module_of(start()), {"momentum": 0.9} if name == "sgd" else {}
    theirs = torchs(name, named, options, BEFORE)
    one = torch.ones((), dtype=torch.float64, requires_grad=True)
    for held in theirs.state.values():
        held.update({key: one * value for key, value in held.items() if key != "step"})
    ours, state = optim.from_torch(theirs, named)
    assert not any(leaf.requires_grad for leaf in tree.leaves(state))
    lively = tree.map(lambda leaf: one * leaf if leaf.is_floating_point() else leaf, state)
    again = optim.to_torch(ours, named, lively)
    assert not any(value.requires_grad for held in again.state.values() for value in held.values())
    assert_same_run(named, again, ours, state)


@pytest.mark.parametrize("name", ["sgd", "adam", "nadam"])
def test_the_state_is_where_the_parameters_are(name):
    """And not where torch keeps its counts, which is the CPU; of the meta device, which every machine has."""
    named = module_of(tree.to(start(), "meta"))
    theirs = torchs(name, named, {"momentum": 0.9} if name == "sgd" else {}, BEFORE)
    state = optim.from_torch(theirs, named)[1]
    assert {leaf.device.type for leaf in tree.leaves(state)} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_count_has_the_dtype_that_torch_gives_it(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        named = module_of(start())
        theirs = torchs("adam", named, {}, BEFORE)
        ours, state = optim.from_torch(theirs, named)
        assert_same_torch_state(theirs, optim.to_torch(ours, named, state))
    finally:
        torch.set_default_dtype(before)


def test_switches_stay_switches_and_numbers_become_floats():
    named = module_of(start())
    theirs = torch.optim.Adam(named.values(), lr=torch.tensor(1.0), weight_decay=0, amsgrad=True)
    rule = optim.from_torch(theirs, named)[0].rule
    kinds = {"lr": float, "betas": tuple, "eps": float, "weight_decay": float, "amsgrad": bool, "maximize": bool}
    assert {option: type(value) for option, value in rule.options.items()} == kinds
    assert [type(beta) for beta in rule.options["betas"]] == [float, float]


def test_tensors_and_schedules_become_numbers_at_this_step():
    named = module_of(start())
    rule = optim.sgd(optim.cosine(0.3, 7), momentum=torch.tensor(0.9, dtype=torch.float64, requires_grad=True))
    _, state = go_on(rule, start(), rule.init(start()), steps=range(4))
    group = optim.to_torch(optim.chain(rule), named, (state,)).param_groups[0]
    assert group["momentum"] == 0.9
    assert group["lr"] == float(optim.cosine(0.3, 7)(torch.tensor(4))) != 0.3


def test_higher_goes_on_from_our_state():
    """The meta-gradient of two steps from a warm momentum, by the library that wants an object."""
    rule = optim.sgd(0.2, momentum=0.9, weight_decay=0.1)
    params, state = go_on(rule, start(), rule.init(start()), steps=range(BEFORE))
    params = {name: value.detach() for name, value in params.items()}
    module = nn.ParameterDict({name: nn.Parameter(value.clone()) for name, value in params.items()})
    theirs = optim.to_torch(rule, dict(module.items()), state)
    with higher.innerloop_ctx(module, theirs, copy_initial_weights=False) as (train_state, steps_taken):
        for k in range(2):
            losses = [0.4**k * (0.5 * torch.sin(2.0 * p + k) + 0.15 * p * p).sum() for p in train_state.parameters()]
            steps_taken.step(sum(losses))
        after = dict(zip(module, train_state.parameters(), strict=True))
        end = score({name: after[name] for name in params})
        expected = dict(zip(module, torch.autograd.grad(end, module.values()), strict=True))
    found = torch.func.grad(lambda p: score(go_on(rule, p, state, steps=range(2))[0]))(params)
    assert_close_tree(found, {name: expected[name] for name in found}, rtol=1e-12)


@pytest.mark.parametrize("constructor", [torch.optim.LBFGS, torch.optim.ASGD, type("Mine", (torch.optim.SGD,), {})])
def test_a_method_that_we_lack_is_an_error(constructor):
    """A subclass is one: it may step as it likes."""
    named = module_of(start())
    with pytest.raises(
        InputError, match=f"torch's {constructor.__name__} has no counterpart.*: choose from Adadelta, "
    ):
        optim.from_torch(constructor(named.values(), lr=0.1), named)


def test_the_names_must_be_those_of_what_is_stepped():
    named = module_of(start())
    with pytest.raises(InputError, match="steps 3 parameters that `named` lacks"):
        optim.from_torch(torch.optim.SGD(named.values(), 0.1), {})
    with pytest.raises(InputError, match="does not step b: leave that out"):
        optim.from_torch(torch.optim.SGD([named["w"], named["scalar"]], 0.1), named)


CLIPPED = optim.chain(optim.clip_by_global_norm(1.0), optim.adam())
UNTELLABLE = {
    "groups of adagrad, adamw: torch takes one method": optim.groups(
        lambda name: "w" if name == "w" else "rest", {"w": optim.adamw(), "rest": optim.adagrad()}
    ),
    r"chain\(clip_by_global_norm, adam\) is not one torch optimiser": CLIPPED,
    r"chain\(clip_by_global_norm, \?\)": optim.chain(optim.clip_by_global_norm(1.0), optim.adam()._replace(rule=None)),
    "torch.optim has no lamb: choose from adadelta, ": optim.lamb(),
    "torch.optim has no lars": optim.lars(0.1),
    "torch.optim has no lion": optim.lion(),
    "without a `rule`": optim.sgd(0.1)._replace(rule=None),
    "groups of adam, sgd: torch takes one method": optim.groups(
        lambda name: "w" if name == "w" else "rest", {"w": optim.sgd(1), "rest": optim.adam()}
    ),
}


@pytest.mark.parametrize("message", UNTELLABLE)
def test_what_torch_cannot_be_told_is_an_error(message):
    with pytest.raises(InputError, match=message):
        optim.to_torch(UNTELLABLE[message], module_of(start()), UNTELLABLE[message].init(start()))


def test_the_state_must_be_that_of_the_parameters():
    rule, named = optim.adam(), module_of(start())
    state = rule.init({"w": start()["w"], "other": start()["b"]})
    with pytest.raises(InputError, match="the state is that of w, other, `params` has w, b, scalar"):
        optim.to_torch(rule, named, state)
    by_name = optim.groups(lambda name: name, dict.fromkeys(named, rule))
    with pytest.raises(InputError, match="the state has no group 'b', that of 'b'"):
        optim.to_torch(by_name, named, by_name.init({"w": start()["w"], "scalar": start()["scalar"]}))
