"""Optimisers against `torch.optim`, papers and closed forms; never against themselves."""

import inspect
import math

import pytest
import torch
from asserts import assert_close_tree, assert_pure
from steps import GRIDS, LONG, METHODS, STEPS, TORCHS, go_on, gradient, run_ours, run_torch, start
from torch import nn

from metapl import optim
from metapl.core import tree
from metapl.core.types import Rule
from metapl.optim import parts

CASES = [(name, options) for name, grid in GRIDS.items() for options in grid]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_equals_torchs(name, options):
    (ours, theirs), steps = METHODS[name], LONG.get(name, STEPS)
    expected = run_torch(lambda p: theirs(p, lr=0.1, **options), start(), steps=steps)
    assert_close_tree(run_ours(ours(0.1, **options), start(), steps=steps), expected, rtol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_torchs(name):
    ours, theirs = METHODS[name]
    given = {"lr": 0.1} if name in ("sgd", "lars") else {}
    assert_close_tree(run_ours(ours(**given), start()), run_torch(lambda p: theirs(p, **given), start()), rtol=1e-12)


@pytest.mark.parametrize("name", TORCHS)
def test_options_are_torchs(name):
    """`capturable` and its like say how torch computes a step, not which."""
    ours, theirs = (inspect.signature(constructor).parameters for constructor in TORCHS[name])
    how = {"params", "foreach", "fused", "capturable", "differentiable"}
    # torch's AdamW is its Adam with decoupled decay, and so is ours.
    assert set(ours) == set(theirs) - how - ({"decoupled_weight_decay"} if name == "adam" else set())
    required = {"lr"} if name == "sgd" else set()
    assert all(ours[option].default == theirs[option].default for option in set(ours) - required)


def test_every_method_is_compared():
    assert set(METHODS) == set(GRIDS) == set(optim.OPTIMIZERS)


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in GRIDS for option in GRIDS[name][0]])
def test_every_option_matters_on_this_sequence(name, option):
    """Otherwise the grid above would not see it: two entries that differ in it alone, for each pair of its values."""
    seen = 0
    for one, other in ((a, b) for a in GRIDS[name] for b in GRIDS[name] if a[option] != b[option]):
        if {**one, option: None} == {**other, option: None}:
            ends = (
                run_ours(METHODS[name][0](0.1, **options), start(), steps=LONG.get(name, STEPS))
                for options in (one, other)
            )
            seen += tree.norm(tree.sub(*ends)) > 1e-4
            if seen == 3:
                return
    pytest.fail(f"{option} moves nothing")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("before", [0, 7])
def test_single_precision_loses_no_digits(name, before):
    """A bias correction 1 − 0.999 in float32 is off by 10⁻⁵, and the first update by half of that."""
    (ours, theirs), given = METHODS[name], {"lr": 0.1} if name in ("sgd", "lars") else {}
    optimizer, wide = ours(**given), start()
    here, there = (run_torch(lambda p: theirs(p, **given), wide, steps=steps) for steps in (before, before + 1))
    _, state = go_on(optimizer, wide, optimizer.init(wide), steps=range(before))
    narrow, grads = tree.to(here, torch.float32), tree.to(gradient(here, before), torch.float32)
    found, after = optimizer.update(grads, tree.to(state, torch.float32) if before else optimizer.init(narrow), narrow)
    assert_close_tree(found, tree.sub(there, here), rtol=5e-7)
    scalar = {id(getattr(after, "product", None))}
    assert all(
        leaf.dtype in (torch.float32, torch.int64) for leaf in tree.leaves((found, after)) if id(leaf) not in scalar
    )


@pytest.mark.parametrize("name", METHODS)
def test_wide_hyperparameters_do_not_promote(name):
    """Two scalars of different width make the wider, whatever torch does with matrices."""

    def wide(value):
        return tuple(map(wide, value)) if isinstance(value, tuple) else torch.tensor(value, dtype=torch.float64)

    options = {key: value if isinstance(value, bool) else wide(value) for key, value in GRIDS[name][-1].items()}
    optimizer, params = METHODS[name][0](optim.constant(0.1), **options), tree.to(start(), torch.float32)
    updates, state = optimizer.update(gradient(params, 0), optimizer.init(params), params)
    fields = [field for field in state if isinstance(field, dict)]
    assert all(leaf.dtype == torch.float32 for leaf in tree.leaves((updates, fields)))


@pytest.mark.parametrize("max_norm", [0.05, 1.0, 1e3])
def test_clip_by_global_norm_equals_torchs(max_norm):
    def clip(optimizer, step):
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_norm)

    ours = optim.chain(optim.clip_by_global_norm(max_norm), optim.sgd(0.1, momentum=0.9))
    expected = run_torch(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), start(), before_step=clip)
    assert_close_tree(run_ours(ours, start()), expected, rtol=1e-12)


@pytest.mark.parametrize("limit", [0.01, 0.5, 1e3])
def test_clip_by_value_equals_torchs(limit):
    def clip(optimizer, step):
        nn.utils.clip_grad_value_(optimizer.param_groups[0]["params"], limit)

    ours = optim.chain(optim.clip_by_value(limit), optim.adam(0.1))
    expected = run_torch(lambda p: torch.optim.Adam(p, 0.1), start(), before_step=clip)
    assert_close_tree(run_ours(ours, start()), expected, rtol=1e-12)


def test_a_chain_wants_a_state_for_each_link():
    optimizer, params = optim.chain(optim.clip_by_value(0.1), optim.sgd(0.1)), start()
    with pytest.raises(ValueError, match=r"argument 2 is shorter"):
        optimizer.update(params, optimizer.init(params)[:1], params)


@pytest.mark.parametrize("options", [{"nesterov": True}, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}])
def test_nesterov_needs_undampened_momentum(options):
    with pytest.raises(ValueError, match="nesterov"):
        optim.sgd(0.1, **options)


def test_first_steps_in_closed_form():
    """|p| = 5 and |g| = 10: the trust ratios are known."""
    p, g = torch.tensor([3.0, -4.0], dtype=torch.float64), torch.tensor([6.0, 8.0], dtype=torch.float64)
    sign = torch.tensor([1.0, 1.0], dtype=torch.float64)
    expected = [
        (optim.lamb(0.1, eps=0.0, weight_decay=0.0), -0.1 * 5.0 / math.sqrt(2.0) * sign),
        (optim.lars(0.1, trust_coefficient=0.02), -0.1 * 0.02 * 5.0 / 10.0 * g),
        (optim.lars(0.1, trust_coefficient=0.02, weight_decay=2.0), -0.1 * 0.02 * 5.0 / 20.0 * (g + 2.0 * p)),
        (optim.lion(0.1, weight_decay=0.5), -0.1 * (sign + 0.5 * p)),
        (optim.lion(0.1, maximize=True), 0.1 * sign),
    ]
    for optimizer, closed in expected:
        updates, _ = optimizer.update({"w": g}, optimizer.init({"w": p}), {"w": p})
        assert_close_tree(updates["w"], closed, rtol=1e-15)


def test_trust_is_one_where_a_norm_is_zero():
    """A layer that starts at zero moves as under Adam, or SGD; one without a gradient stays."""
    p, zero = torch.tensor([3.0, -4.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for optimizer, moved in (
        (optim.lamb(0.1, eps=0.0, weight_decay=0.0), -0.1 * p.sign()),
        (optim.lars(0.1), -0.1 * p),
    ):
        updates, _ = optimizer.update({"w": p}, optimizer.init({"w": zero}), {"w": zero})
        assert_close_tree(updates["w"], moved, rtol=1e-15)
        still = optimizer.update({"w": zero}, optimizer.init({"w": p}), {"w": p})
        assert not tree.norm(still[0]) > 0
    for top, bottom in ((3.0, 0.0), (0.0, 3.0), (0.0, 0.0)):
        assert float(parts.trust(torch.tensor(top), torch.tensor(bottom))) == 1.0
    # No gradient, but a penalty: the paper's ratio is coefficient / weight_decay, which its limit is too.
    optimizer = optim.lars(0.1, trust_coefficient=0.02, weight_decay=0.5)
    assert_close_tree(optimizer.update({"w": zero}, optimizer.init({"w": p}), {"w": p})[0]["w"], -0.1 * 0.02 * p, 1e-15)


def test_centred_root_of_a_rounding_error_is_zero():
    """g² − g · g may come out negative; torch's root of it is NaN."""
    optimizer, params = optim.rmsprop(0.1, alpha=0.1, centered=True, eps=1e-3), {"w": torch.tensor([0.3])}
    state = optimizer.init(params)._replace(square={"w": torch.tensor([0.0899])}, mean={"w": torch.tensor([0.3])})
    updates, _ = optimizer.update(params, state, params)
    assert torch.isfinite(updates["w"]).all()


def test_cosine_equals_the_closed_form():
    base, total, warmup, wait = 0.7, 20, 4, 3
    schedule = optim.cosine(base, total, warmup, wait)
    for step in range(30):
        s = step - wait
        falling = 0.5 * base * (1.0 + math.cos(math.pi * min((s - warmup) / (total - warmup - wait), 1.0)))
        expected = 0.0 if s < 0 else base * (s + 1) / warmup if s < warmup else falling
        assert abs(float(assert_pure(schedule, torch.tensor(step))) - expected) <= 1e-15


def test_plateau_equals_the_closed_form():
    schedule = optim.plateau(0.7, 20, 4, 3)
    rates = [float(assert_pure(schedule, torch.tensor(step))) for step in range(30)]
    assert rates == pytest.approx([0.0] * 3 + [0.7 * part / 4 for part in (1, 2, 3)] + [0.7] * 24, rel=1e-15)
    assert [float(optim.plateau(0.7, 20, 4)(torch.tensor(step))) for step in range(2)] == pytest.approx([0.175, 0.35])
    assert float(optim.plateau(0.7, 20)(torch.tensor(0))) == 0.7


@pytest.mark.parametrize("name", optim.SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1])
def test_a_schedule_without_a_rise_waits_and_is_there(name, warmup):
    schedule = optim.SCHEDULES[name](0.7, 20, warmup, 2)
    assert [float(schedule(torch.tensor(step))) for step in range(3)] == [0.0, 0.0, 0.7]


def test_cosine_and_constant_equal_torchs_schedulers():
    for ours in (optim.cosine(0.3, STEPS), optim.constant(0.3)):
        parameter = nn.Parameter(torch.zeros(()))
        optimizer = torch.optim.SGD([parameter], 0.3)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for step in range(STEPS + 1):
            expected = scheduler.get_last_lr()[0] if ours(torch.tensor(STEPS)) == 0 else 0.3
            assert abs(float(ours(torch.tensor(step))) - expected) <= 1e-15
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize(("warmup", "wait"), [(10, 0), (0, 10), (6, 4)])
def test_cosine_needs_steps_to_fall(warmup, wait):
    with pytest.raises(ValueError, match="must be more than"):
        optim.cosine(0.1, 10, warmup, wait)


@pytest.mark.parametrize("name", TORCHS)
def test_scheduled_optimiser_equals_torch_with_a_scheduler(name):
    ours, theirs = TORCHS[name]
    expected = run_torch(
        lambda p: theirs(p, 0.3),
        start(),
        before_step=lambda o, step: o.param_groups[0].update(lr=0.15 * (1 + math.cos(math.pi * step / 7))),
    )
    assert_close_tree(run_ours(ours(optim.cosine(0.3, 7)), start()), expected, rtol=1e-12)


EVERY = {
    "sgd": lambda: optim.sgd(0.1),
    "dampened": lambda: optim.sgd(0.1, momentum=0.9, dampening=0.1, weight_decay=0.1, maximize=True),
    "schedule": lambda: optim.sgd(optim.cosine(0.1, 10)),
    "chain": lambda: optim.chain(
        optim.clip_by_global_norm(0.1), optim.clip_by_value(0.1), optim.sgd(0.1, momentum=0.5)
    ),
    "constant": lambda: optim.sgd(optim.constant(0.1)),
    **{name: lambda name=name: METHODS[name][0](0.1) for name in METHODS if name != "sgd"},
    # The last of a grid has everything at work.
    **{f"{name}, all": lambda name=name: METHODS[name][0](0.1, **GRIDS[name][-1]) for name in METHODS},
}


@pytest.mark.parametrize("name", EVERY)
def test_optimisers_are_pure(name):
    optimizer, params = EVERY[name](), start()
    state = assert_pure(optimizer.init, params)
    for step in range(2):
        _, state = assert_pure(optimizer.update, gradient(params, step), state, params)


@pytest.mark.parametrize("name", EVERY)
def test_parameters_are_matched_by_name(name):
    """A state that comes back from a checkpoint may list them in another order."""
    optimizer, params = EVERY[name](), {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([-3.0, 5.0])}
    grads = {"b": torch.tensor([0.5, 0.1]), "a": torch.tensor([2.0, -1.0])}
    _, state = optimizer.update(params, optimizer.init(params), params)
    expected, _ = optimizer.update({"a": grads["a"], "b": grads["b"]}, state, params)
    found, _ = optimizer.update(grads, state, params)
    assert all(torch.equal(found[name], expected[name]) for name in params)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_the_rule_records_every_argument(name):
    constructor = optim.OPTIMIZERS[name]
    options = {"lr": 0.3, **GRIDS[name][-1]}
    rule = constructor(**options).rule
    assert rule.name == name
    assert set(rule.options) == set(inspect.signature(constructor).parameters)
    assert {key: rule.options[key] for key in options} == options
    assert constructor(**rule.options).rule == rule


def test_the_rule_of_a_link_records_its_arguments():
    links = optim.clip_by_global_norm(0.3), optim.clip_by_value(0.2)
    assert links[0].rule == Rule("clip_by_global_norm", {"max_norm": 0.3})
    assert links[1].rule == Rule("clip_by_value", {"limit": 0.2})
    assert optim.chain(*links).rule == Rule("chain", {"links": links})


@pytest.mark.parametrize("name", EVERY)
def test_no_parameters_are_stepped_as_well_as_many(name):
    """Of a network with nothing to train the optimiser goes on counting."""
    optimizer = EVERY[name]()
    state = optimizer.init({})
    updates, after = optimizer.update({}, state, {})
    assert updates == {}
    assert tree.flatten(after)[1] == tree.flatten(state)[1]
    assert [int(leaf) for leaf in tree.leaves(after) if leaf.dtype == torch.int64] == [1]


@pytest.mark.parametrize("name", EVERY)
def test_everything_stays_on_the_device_of_the_parameters(name):
    """Of the meta device, which every machine has, and which takes no tensor from another but a scalar."""
    optimizer, params = EVERY[name](), tree.to(start(), "meta")
    state = optimizer.init(params)
    updates, after = optimizer.update(params, state, params)
    assert {leaf.device.type for leaf in tree.leaves((state, updates, after))} == {"meta"}


@pytest.mark.parametrize("name", optim.SCHEDULES)
def test_a_schedule_stays_on_the_device_of_the_count(name):
    step = torch.zeros((), dtype=torch.int64, device="meta")
    assert {rate(step).device.type for rate in (optim.SCHEDULES[name](0.1, 10, 2, 1), optim.constant(0.1))} == {"meta"}
