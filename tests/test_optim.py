"""Optimisers against `torch.optim`, finite differences of it, closed forms and `higher`; never against themselves."""

import itertools
import math

import higher
import pytest
import torch
from asserts import assert_close_tree, assert_pure, assert_same_gradient, finite_differences
from torch import nn

from metapl import optim, tree

STEPS = 5
ADAMS = {"adam": (optim.adam, torch.optim.Adam), "adamw": (optim.adamw, torch.optim.AdamW)}


def grid(**options):
    """Every combination, as one dictionary of keyword arguments each."""
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


SGD = [
    options
    for options in grid(
        momentum=[0.0, 0.9],
        dampening=[0.0, 0.3],
        nesterov=[False, True],
        weight_decay=[0.0, 0.1],
        maximize=[False, True],
    )
    if not options["nesterov"] or (options["momentum"] and not options["dampening"])
]
ADAM = grid(
    betas=[(0.9, 0.999), (0.0, 0.9), (0.5, 0.8)],
    eps=[1e-8, 1e-3],
    weight_decay=[0.0, 0.1],
    amsgrad=[False, True],
    maximize=[False, True],
)


def start():
    generator = torch.Generator().manual_seed(0)
    shapes = {"w": (3, 2), "b": (4,), "scalar": ()}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def gradient(params, step):
    """Nowhere zero, curved in the parameters, and shrinking, so that AMSGrad's maximum is at work."""
    return {name: 0.4**step * (torch.cos(2.0 * p + step) + 0.3 * p) for name, p in params.items()}


def run_ours(optimizer, params, noise=None, steps=STEPS):
    """The parameters after some steps; `noise[i]` is added to the gradient of step i."""
    state = optimizer.init(params)
    for step in range(steps):
        grads = gradient(params, step)
        updates, state = optimizer.update(tree.add(grads, noise[step]) if noise else grads, state, params)
        params = tree.add(params, updates)
    return params


def run_torch(build, params, noise=None, steps=STEPS, before_step=lambda optimizer, step: None):
    names, params = list(params), [nn.Parameter(value.clone()) for value in params.values()]
    optimizer = build(params)
    for step in range(steps):
        with torch.no_grad():
            for name, p, grad in zip(names, params, gradient(dict(enumerate(params)), step).values(), strict=True):
                p.grad = grad + noise[step][name] if noise else grad
        before_step(optimizer, step)
        optimizer.step()
    return {name: p.detach() for name, p in zip(names, params, strict=True)}


def score(params):
    return sum(torch.sin(value + index).sum() for index, value in enumerate(params.values()))


@pytest.mark.parametrize("options", SGD, ids=str)
def test_sgd_equals_torchs(options):
    expected = run_torch(lambda p: torch.optim.SGD(p, 0.1, **options), start())
    assert_close_tree(run_ours(optim.sgd(0.1, **options), start()), expected, rtol=1e-12)


@pytest.mark.parametrize("options", ADAM, ids=str)
@pytest.mark.parametrize("name", ADAMS)
def test_adam_equals_torchs(name, options):
    ours, theirs = ADAMS[name]
    expected = run_torch(lambda p: theirs(p, 0.1, **options), start())
    assert_close_tree(run_ours(ours(0.1, **options), start()), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ADAMS)
def test_defaults_are_torchs(name):
    ours, theirs = ADAMS[name]
    assert_close_tree(run_ours(ours(), start()), run_torch(theirs, start()), rtol=1e-12)


@pytest.mark.parametrize("change", [{"amsgrad": True}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"betas": (0.0, 0.9)}])
def test_every_option_matters_on_this_sequence(change):
    """Otherwise the grid above would not see it."""
    plain, changed = ({"betas": (0.5, 0.8), **options} for options in ({}, change))
    difference = tree.norm(
        tree.sub(run_ours(optim.adam(0.1, **plain), start()), run_ours(optim.adam(0.1, **changed), start()))
    )
    assert difference > 1e-4


@pytest.mark.parametrize("name", ADAMS)
def test_single_precision_loses_no_digits(name):
    """A bias correction 1 − 0.999 in float32 is off by 10⁻⁵, and the first update by half of that."""
    (ours, theirs), wide = ADAMS[name], start()
    narrow = tree.to(wide, torch.float32)
    expected = tree.sub(run_torch(theirs, wide, steps=1), wide)
    found, state = ours().update(gradient(narrow, 0), ours().init(narrow), narrow)
    assert_close_tree(found, expected, rtol=5e-7)
    assert all(leaf.dtype in (torch.float32, torch.int64) for leaf in tree.leaves((found, state)))


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


@pytest.mark.parametrize("options", [{"nesterov": True}, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}])
def test_nesterov_needs_undampened_momentum(options):
    with pytest.raises(ValueError, match="nesterov"):
        optim.sgd(0.1, **options)


def test_cosine_equals_the_closed_form():
    base, total, warmup, wait = 0.7, 20, 4, 3
    schedule = optim.cosine(base, total, warmup, wait)
    for step in range(30):
        s = step - wait
        falling = 0.5 * base * (1.0 + math.cos(math.pi * min((s - warmup) / (total - warmup - wait), 1.0)))
        expected = 0.0 if s < 0 else base * (s + 1) / warmup if s < warmup else falling
        assert abs(float(assert_pure(schedule, torch.tensor(step))) - expected) <= 1e-15


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


def test_scheduled_optimiser_equals_torch_with_a_scheduler():
    expected = run_torch(
        lambda p: torch.optim.Adam(p, 0.3),
        start(),
        before_step=lambda o, step: o.param_groups[0].update(lr=0.15 * (1 + math.cos(math.pi * step / 7))),
    )
    assert_close_tree(run_ours(optim.adam(optim.cosine(0.3, 7)), start()), expected, rtol=1e-12)


EVERY = {
    "sgd": lambda: optim.sgd(0.1),
    "sgd, all": lambda: optim.sgd(0.1, momentum=0.9, dampening=0.1, weight_decay=0.1, maximize=True),
    "adam": lambda: optim.adam(amsgrad=True, weight_decay=0.1),
    "adamw": lambda: optim.adamw(amsgrad=True),
    "chain": lambda: optim.chain(
        optim.clip_by_global_norm(0.1), optim.clip_by_value(0.1), optim.sgd(0.1, momentum=0.5)
    ),
    "schedule": lambda: optim.sgd(optim.cosine(0.1, 10)),
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


HYPERPARAMETERS = {
    "sgd": {"lr": 0.2, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1},
    "nesterov": {"lr": 0.2, "momentum": 0.8, "weight_decay": 0.1},
    "adam": {"lr": 0.2, "beta1": 0.6, "beta2": 0.8, "eps": 0.05, "weight_decay": 0.1},
    "adamw": {"lr": 0.2, "beta1": 0.6, "beta2": 0.8, "eps": 0.05, "weight_decay": 0.1},
}

VARIANTS = [
    *itertools.product(HYPERPARAMETERS, [{}, {"maximize": True}]),
    *itertools.product(ADAMS, [{"amsgrad": True}]),
]


def ours_of(kind, values, **options):
    if kind in ADAMS:
        rest = {name: value for name, value in values.items() if not name.startswith("beta")}
        return ADAMS[kind][0](betas=(values["beta1"], values["beta2"]), **rest, **options)
    return optim.sgd(nesterov=kind == "nesterov", **values, **options)


def torchs_of(kind, values, **options):
    values = {name: float(value) for name, value in values.items()}
    if kind in ADAMS:
        betas = (values.pop("beta1"), values.pop("beta2"))
        return lambda p: ADAMS[kind][1](p, betas=betas, **values, **options)
    return lambda p: torch.optim.SGD(p, nesterov=kind == "nesterov", **values, **options)


@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
def test_derivative_in_hyperparameters_equals_finite_differences_of_torchs_run(kind, options):
    at = {name: torch.tensor(value, dtype=torch.float64) for name, value in HYPERPARAMETERS[kind].items()}
    found = torch.func.grad(lambda h: score(run_ours(ours_of(kind, h, **options), start(), steps=3)))(at)
    expected = finite_differences(lambda h: score(run_torch(torchs_of(kind, h, **options), start(), steps=3)), at)
    assert all(abs(value) > 1e-5 for value in expected.values()), (
        f"a derivative that vanishes tests nothing: {expected}"
    )
    assert_close_tree(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
def test_derivative_in_gradients_equals_finite_differences_of_torchs_run(kind, options):
    values, noise = HYPERPARAMETERS[kind], [tree.zeros_like(start()) for _ in range(3)]
    found = torch.func.grad(lambda n: score(run_ours(ours_of(kind, values, **options), start(), n, 3)))(noise)
    theirs = torchs_of(kind, values, **options)
    expected = finite_differences(lambda n: score(run_torch(theirs, start(), n, 3)), noise)
    for one, other in zip(found, expected, strict=True):
        assert_same_gradient(one, other, norm_tol=1e-6, cosine_tol=1e-12)


@pytest.mark.parametrize("max_norm", [0.05, 1e3])
def test_derivative_through_clipping_equals_finite_differences_of_torchs_run(max_norm):
    def clip(optimizer, step):
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_norm)

    ours = optim.chain(optim.clip_by_global_norm(max_norm), optim.clip_by_value(max_norm), optim.sgd(0.2, momentum=0.9))
    noise = [tree.zeros_like(start()) for _ in range(3)]
    found = torch.func.grad(lambda n: score(run_ours(ours, start(), n, 3)))(noise)
    expected = finite_differences(
        lambda n: score(run_torch(lambda p: torch.optim.SGD(p, 0.2, momentum=0.9), start(), n, 3, clip)), noise
    )
    assert_same_gradient(found, expected, norm_tol=1e-6, cosine_tol=1e-12)


def higher_meta_gradient(options):
    """d score / d start by `higher`, whose loss at step k has the gradient of `gradient`."""
    module = nn.ParameterDict({name: nn.Parameter(value) for name, value in start().items()})
    inner = torch.optim.SGD(module.parameters(), 0.2, **options)
    with higher.innerloop_ctx(module, inner, copy_initial_weights=False) as (learner, steps_taken):
        for k in range(3):
            losses = [0.4**k * (0.5 * torch.sin(2.0 * p + k) + 0.15 * p * p).sum() for p in learner.parameters()]
            steps_taken.step(sum(losses))
        named = dict(zip(module, learner.parameters(), strict=True))
        return dict(
            zip(module, torch.autograd.grad(score({n: named[n] for n in start()}), module.values()), strict=True)
        )


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}])
def test_meta_gradient_of_three_steps_equals_finite_differences_and_higher(options):
    """From a fresh state: the first momentum counts, which `torch.optim.SGD(differentiable=True)` forgets."""
    found = torch.func.grad(lambda p: score(run_ours(optim.sgd(0.2, **options), p, steps=3)))(start())
    expected = finite_differences(
        lambda p: score(run_torch(lambda q: torch.optim.SGD(q, 0.2, **options), p, steps=3)), start()
    )
    assert_same_gradient(found, expected, norm_tol=1e-6, cosine_tol=1e-12)
    assert_close_tree(found, {name: higher_meta_gradient(options)[name] for name in found}, rtol=1e-12)


def test_maml_in_integers():
    """w = (2, 3, 5), f = (x · w)² / 2: no tolerance."""
    optimizer = optim.sgd(0.5)

    def loss(w, x):
        return 0.5 * (x @ w) ** 2

    def after(params, optimizer, steps):
        state = optimizer.init(params)
        for _ in range(steps):
            grads = torch.func.grad(lambda p: loss(p["w"], torch.tensor([1.0, 2.0, 3.0])))(params)
            updates, state = optimizer.update(grads, state, params)
            params = tree.add(params, updates)
        return params["w"]

    def outer(params):
        return loss(after(params, optimizer, 1), torch.tensor([4.0, 5.0, 6.0]))

    params = {"w": torch.tensor([2.0, 3.0, 5.0])}
    assert after(params, optimizer, 1).tolist() == [-9.5, -20.0, -29.5]
    assert float(outer(params)) == 49612.5
    assert torch.func.grad(outer)(params)["w"].tolist() == [3780.0, 8505.0, 13230.0]
    assert after(params, optim.sgd(1.0), 2).tolist() == [278.0, 555.0, 833.0]


ZERO = {
    "sgd": lambda lr: optim.sgd(lr, momentum=0.9, weight_decay=0.1),
    "adam": lambda lr: optim.adam(lr, weight_decay=0.0),
    "adamw": lambda lr: optim.adamw(lr, weight_decay=0.1),
    "amsgrad": lambda lr: optim.adamw(lr, amsgrad=True),
    "clipped": lambda lr: optim.chain(optim.clip_by_global_norm(0.1), optim.clip_by_value(0.1), optim.adam(lr)),
}


@pytest.mark.parametrize("alive", [0.0, 1.0])
@pytest.mark.parametrize("name", ZERO)
def test_meta_gradients_are_finite_where_a_gradient_is_exactly_zero(name, alive):
    """`alive`: whether the other entry is not zero, or the whole gradient vanishes."""
    params = {"w": torch.tensor([1.0, -2.0], dtype=torch.float64)}

    def after(grads, lr, params):
        optimizer = ZERO[name](lr)
        state = optimizer.init(params)
        for _ in range(3):
            updates, state = optimizer.update(grads, state, params)
            params = tree.add(params, updates)
        return params["w"].sum()

    arguments = ({"w": torch.tensor([0.0, alive]).double()}, torch.tensor(0.1).double(), params)
    found = torch.func.grad(after, argnums=(0, 1, 2))(*arguments)
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(found))
    assert float(found[0]["w"][0]) < 0.0, "a dead entry that came alive would move its parameter"


@pytest.mark.parametrize("build", [optim.adam, optim.adamw])
def test_slope_of_adam_at_zero_is_minus_lr_over_eps(build):
    """The first update is −lr g / (|g| + eps)."""
    optimizer, params = build(0.1, eps=1e-3), {"w": torch.zeros(2, dtype=torch.float64)}
    state = optimizer.init(params)
    jacobian = torch.func.jacrev(lambda g: optimizer.update({"w": g}, state, params)[0]["w"])(params["w"])
    assert_close_tree(jacobian, -100.0 * torch.eye(2, dtype=torch.float64), rtol=1e-12)


def test_clipping_is_the_identity_around_zero():
    link, zero = optim.clip_by_global_norm(0.1), torch.zeros(3, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda g: link.update({"w": g}, (), {})[0]["w"])(zero)
    assert torch.equal(jacobian, torch.eye(3, dtype=torch.float64))
