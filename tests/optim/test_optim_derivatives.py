"""Derivatives through optimisers against finite differences of torch's own run, closed forms and `higher`."""

import higher
import pytest
import torch
from asserts import assert_close_tree, assert_same_gradient, finite_differences
from steps import GRIDS, LONG, METHODS, TORCHS, run_ours, run_torch, score, start
from torch import nn

from metapl import optim
from metapl.core import tree

BETAS = {"beta1": 0.6, "beta2": 0.8}
ADAM = {"lr": 0.2, **BETAS, "eps": 0.05, "weight_decay": 0.1}
HYPERPARAMETERS = {
    "sgd": {"lr": 0.2, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1},
    "nesterov": {"lr": 0.2, "momentum": 0.8, "weight_decay": 0.1},
    "adam": ADAM,
    "adamw": ADAM,
    "rmsprop": {"lr": 0.1, "alpha": 0.7, "eps": 0.1, "weight_decay": 0.1, "momentum": 0.8},
    "adagrad": {"lr": 0.2, "lr_decay": 0.3, "weight_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 0.05},
    "adadelta": {"lr": 0.6, "rho": 0.7, "eps": 0.05, "weight_decay": 0.1},
    "adamax": ADAM,
    "nadam": {**ADAM, "momentum_decay": 0.5},
    # β₂ = 0.9 is rectified from the sixth step on.
    "radam": {**ADAM, "beta2": 0.9},
    "lamb": ADAM,
    "lars": {"lr": 0.5, "momentum": 0.8, "weight_decay": 0.1, "trust_coefficient": 0.3},
    "lion": {"lr": 0.05, "weight_decay": 0.1},
}

SIGNED: dict[str, set[str]] = {"lion": set()}
"""Rules whose update is a sign, which no gradient goes through, and the numbers that it hides with it."""

PLAIN = [(kind, {}) for kind in HYPERPARAMETERS if kind not in SIGNED]
VARIANTS = [
    *PLAIN,
    *((kind, {"maximize": True}) for kind in ("sgd", "nesterov", "adam", "adamw")),
    *((kind, {"amsgrad": True}) for kind in ("adam", "adamw")),
    *((kind, {"decoupled_weight_decay": True}) for kind in ("nadam", "radam")),
    ("rmsprop", {"centered": True}),
    ("lars", {"nesterov": True}),
]

# A sign is cheap to try here, and dear for each entry of each gradient.
SIGNS = [
    (kind, {"maximize": True})
    for kind in HYPERPARAMETERS
    if "maximize" in GRIDS.get(kind, [{}])[0] and (kind, {"maximize": True}) not in VARIANTS
]


def build(which, kind, values, options):
    """Ours (0) or theirs (1), from the values by name."""
    values = dict(values)
    if "beta1" in values:
        values["betas"] = (values.pop("beta1"), values.pop("beta2"))
    if kind == "nesterov":
        kind, options = "sgd", {"nesterov": True, **options}
    return lambda *params: METHODS[kind][which](*params, **values, **options)


def ours_of(kind, values, options):
    return build(0, kind, values, options)()


def torchs_of(kind, values, options):
    return build(1, kind, {name: float(value) for name, value in values.items()}, options)


def steps_of(kind):
    return LONG.get(kind, 3)


@pytest.mark.parametrize(("kind", "options"), [*VARIANTS, *SIGNS, *((kind, {}) for kind in SIGNED)], ids=str)
def test_derivative_in_hyperparameters_equals_finite_differences_of_torchs_run(kind, options):
    at = {name: torch.tensor(value, dtype=torch.float64) for name, value in HYPERPARAMETERS[kind].items()}
    steps = steps_of(kind)
    found = torch.func.grad(lambda h: score(run_ours(ours_of(kind, h, options), start(), steps=steps)))(at)
    expected = finite_differences(lambda h: score(run_torch(torchs_of(kind, h, options), start(), steps=steps)), at)
    assert all(abs(value) > 1e-5 for value in expected.values()), (
        f"a derivative that vanishes tests nothing: {expected}"
    )
    assert_close_tree(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
def test_derivative_in_gradients_equals_finite_differences_of_torchs_run(kind, options):
    values, steps = HYPERPARAMETERS[kind], steps_of(kind)
    noise = [tree.zeros_like(start()) for _ in range(steps)]
    found = torch.func.grad(lambda n: score(run_ours(ours_of(kind, values, options), start(), n, steps)))(noise)
    theirs = torchs_of(kind, values, options)
    expected = finite_differences(lambda n: score(run_torch(theirs, start(), n, steps)), noise)
    for one, other in zip(found, expected, strict=True):
        assert_same_gradient(one, other, norm_tol=1e-6, cosine_tol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind, values in HYPERPARAMETERS.items() if "beta1" not in values])
def test_every_numeric_option_is_differentiated(kind):
    """With the betas, which `build` makes of two numbers, these are all: an option without a test would be seen."""
    named = set(HYPERPARAMETERS[kind]) | ({"dampening"} if kind == "nesterov" else set()) | SIGNED.get(kind, set())
    rule = METHODS["sgd" if kind == "nesterov" else kind][0](0.1).rule
    numeric = {name for name, value in rule.options.items() if isinstance(value, float)}
    assert numeric == named


def test_lion_is_differentiable_in_its_rate_and_decay_only():
    """The derivative of the sign is zero: no θ can be learned through it."""
    noise = [tree.zeros_like(start()) for _ in range(3)]
    betas = tuple(torch.tensor(beta, dtype=torch.float64) for beta in (0.6, 0.8))

    def after(noise, betas):
        return score(run_ours(optim.lion(0.05, betas=betas, weight_decay=0.1), start(), noise, 3))

    found = torch.func.grad(after, argnums=(0, 1))(noise, betas)
    assert all(torch.equal(leaf, torch.zeros_like(leaf)) for leaf in tree.leaves(found))


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
    with higher.innerloop_ctx(module, inner, copy_initial_weights=False) as (train_state, steps_taken):
        for k in range(3):
            losses = [0.4**k * (0.5 * torch.sin(2.0 * p + k) + 0.15 * p * p).sum() for p in train_state.parameters()]
            steps_taken.step(sum(losses))
        named = dict(zip(module, train_state.parameters(), strict=True))
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


@pytest.mark.parametrize("kind", METHODS)
def test_meta_gradient_in_the_start_equals_finite_differences_of_torchs_run(kind):
    """By way of the parameters: weight decay, trust ratios, and the gradients that depend on them."""
    values, steps = HYPERPARAMETERS[kind], steps_of(kind)
    found = torch.func.grad(lambda p: score(run_ours(ours_of(kind, values, {}), p, steps=steps)))(start())
    expected = finite_differences(lambda p: score(run_torch(torchs_of(kind, values, {}), p, steps=steps)), start())
    assert_same_gradient(found, expected, norm_tol=1e-6, cosine_tol=1e-12)


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
    "rmsprop": optim.rmsprop,
    "rmsprop, all": lambda lr: optim.rmsprop(lr, centered=True, momentum=0.9),
    "adagrad": lambda lr: optim.adagrad(lr, lr_decay=0.1),
    "adadelta": optim.adadelta,
    "adamax": optim.adamax,
    "nadam": optim.nadam,
    "radam": lambda lr: optim.radam(lr, betas=(0.9, 0.9)),
    # ρ∞ = 4 exactly, whose rectification would be a division by zero.
    "radam, never rectified": lambda lr: optim.radam(lr, betas=(0.9, 0.6)),
    "lamb": lambda lr: optim.lamb(lr, weight_decay=0.0),
    "lamb, decayed": optim.lamb,
    "lars": optim.lars,
    "lars, decayed": lambda lr: optim.lars(lr, weight_decay=0.1),
    "lion": lambda lr: optim.lion(lr, weight_decay=0.1),
}


def test_every_method_is_tried_at_zero():
    assert {name.split(",")[0] for name in ZERO} >= set(optim.OPTIMIZERS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("alive", [0.0, 1.0])
@pytest.mark.parametrize("name", ZERO)
def test_meta_gradients_are_finite_where_a_gradient_is_exactly_zero(name, alive, dtype):
    """`alive`: whether the other entry is not zero, or the whole gradient vanishes."""
    params = {"w": torch.tensor([1.0, -2.0], dtype=dtype)}

    def after(grads, lr, params):
        optimizer = ZERO[name](lr)
        state = optimizer.init(params)
        for _ in range(LONG.get(name, 3)):
            updates, state = optimizer.update(grads, state, params)
            params = tree.add(params, updates)
        return params["w"].sum()

    arguments = ({"w": torch.tensor([0.0, alive], dtype=dtype)}, torch.tensor(0.1, dtype=dtype), params)
    found = torch.func.grad(after, argnums=(0, 1, 2))(*arguments)
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(found))
    if name not in SIGNED:
        assert float(found[0]["w"][0]) < 0.0, "a dead entry that came alive would move its parameter"


@pytest.mark.parametrize("name", ["adam", "adamw", "adamax", "rmsprop", "adagrad"])
def test_slope_at_zero_is_minus_lr_over_eps(name):
    """The first update of Adam and Adamax is −lr g / (|g| + eps), and so on."""
    optimizer, params = TORCHS[name][0](0.1, eps=1e-3), {"w": torch.zeros(2, dtype=torch.float64)}
    state = optimizer.init(params)
    jacobian = torch.func.jacrev(lambda g: optimizer.update({"w": g}, state, params)[0]["w"])(params["w"])
    assert_close_tree(jacobian, -100.0 * torch.eye(2, dtype=torch.float64), rtol=1e-12)


def test_clipping_is_the_identity_around_zero():
    link, zero = optim.clip_by_global_norm(0.1), torch.zeros(3, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda g: link.update({"w": g}, (), {})[0]["w"])(zero)
    assert torch.equal(jacobian, torch.eye(3, dtype=torch.float64))
