"""`bilevel.hypergradient` against central differences of training in `torch.optim`, and against closed forms."""

import functools

import pytest
import torch
from asserts import assert_close_tree, finite_differences, relative_error

from metapl import optim
from metapl.core import bilevel, rng, tree
from metapl.registry.errors import InputError

EXAMPLES, SIZE, STEPS = 6, 3, 4
f64 = functools.partial(torch.tensor, dtype=torch.float64)
HOW = {
    "replay": {},
    "reverse": {"method": "reverse"},
    "mixed": {"method": "mixed"},
    "checkpoints": {"checkpoints": True},
}
every_way = pytest.mark.parametrize("how", HOW.values(), ids=HOW)


def normal(seed, *shape):
    return rng.normal(rng.key(seed), shape, torch.float64)


X, Y = normal(1, STEPS, EXAMPLES, SIZE), normal(2, STEPS, EXAMPLES)
HELD = normal(3, EXAMPLES, SIZE), normal(4, EXAMPLES)


def predicted(params, x):
    return (x @ params["w"]).tanh() * params["scale"]


def inner(params, theta, batch):
    x, y = batch
    return (theta["weights"].exp() * (predicted(params, x) - y) ** 2).mean() + theta["penalty"] * (
        params["w"] ** 2
    ).sum()


def outer(params, theta):
    last = theta[-1] if isinstance(theta, list) else theta
    return ((predicted(params, HELD[0]) - HELD[1]) ** 2).mean() + 0.3 * (last["penalty"] - 1.0) ** 2


def begin():
    return {"w": normal(5, SIZE), "scale": f64(0.8)}


def theta_of(seed):
    return {"weights": 0.3 * normal(seed, EXAMPLES), "penalty": f64(0.2), "lr": {"w": f64(0.15), "scale": f64(0.05)}}


RULES = {
    "sgd": (lambda lr: optim.sgd(lr, momentum=0.9), lambda groups: torch.optim.SGD(groups, momentum=0.9)),
    "adam": (
        lambda lr: optim.adam(lr, betas=(0.8, 0.9), eps=1e-3),
        lambda groups: torch.optim.Adam(groups, betas=(0.8, 0.9), eps=1e-3),
    ),
}


def trained(name, thetas, start, theta):
    """The outer loss after `torch.optim` has taken the steps, with the parameters in groups of one."""
    params = {key: value.clone().requires_grad_() for key, value in start.items()}
    stepper = RULES[name][1]([{"params": [value], "lr": 0.0} for value in params.values()])
    for step, one in enumerate(thetas):
        for group, key in zip(stepper.param_groups, params, strict=True):
            group["lr"] = float(one["lr"][key])
        stepper.zero_grad()
        inner(params, one, (X[step], Y[step])).backward()
        stepper.step()
    return outer(tree.detach(params), theta)


@every_way
@pytest.mark.parametrize("name", RULES)
def test_one_theta_for_all_steps(name, how):
    """Weights, a penalty that the outer loss reads too, and a rate for each parameter."""
    theta = theta_of(6)
    found = bilevel.hypergradient(
        inner, outer, lambda theta: RULES[name][0](theta["lr"]), theta, begin(), (X, Y), **how
    )
    truth = finite_differences(lambda theta: trained(name, [theta] * STEPS, begin(), theta), theta)
    assert relative_error(found.grads, truth) <= 1e-8
    assert_close_tree(found.value, trained(name, [theta] * STEPS, begin(), theta), rtol=1e-12)
    assert not any(leaf.requires_grad for leaf in tree.leaves(tuple(found)))


@every_way
@pytest.mark.parametrize("name", RULES)
def test_one_theta_a_step(name, how):
    thetas = [theta_of(10 + k) for k in range(STEPS)]
    batches = list(zip(X, Y, strict=True))
    found = bilevel.hypergradient(
        inner, outer, lambda theta: RULES[name][0](theta["lr"]), thetas, begin(), batches, **how
    )
    truth = finite_differences(lambda thetas: trained(name, thetas, begin(), thetas), thetas)
    assert relative_error(found.grads, truth) <= 1e-8
    assert len(found.grads) == STEPS


@every_way
def test_where_training_begins(how):
    """MAML: the parameters are the meta-parameters, the optimiser is a value."""
    fixed = theta_of(6)

    def from_start(start):
        return trained("sgd", [fixed | {"lr": {"w": 0.1, "scale": 0.1}}] * STEPS, start, fixed)

    found = bilevel.hypergradient(
        lambda params, _, batch: inner(params, fixed, batch),
        lambda params, _: outer(params, fixed),
        RULES["sgd"][0](0.1),
        begin(),
        lambda theta: theta,
        (X, Y),
        **how,
    )
    assert relative_error(found.grads, finite_differences(from_start, begin())) <= 1e-8


def test_many_tasks_at_once():
    """The objective under vmap over tasks of different data: the mean of the gradients of each."""
    fixed = theta_of(6)
    xs, ys = normal(20, 2, STEPS, EXAMPLES, SIZE), normal(21, 2, STEPS, EXAMPLES)

    def of_task(start, x, y):
        return bilevel.objective(
            lambda params, _, batch: inner(params, fixed, batch),
            lambda params, _: ((predicted(params, x[0]) - y[0]) ** 2).mean(),
            optim.sgd(0.1),
            start,
            lambda theta: theta,
            (x, y),
        )[0]

    start = begin()
    together = torch.func.grad(lambda start: torch.vmap(of_task, (None, 0, 0))(start, xs, ys).mean())(start)
    apart = [torch.func.grad(of_task)(start, xs[i], ys[i]) for i in range(2)]
    assert_close_tree(together, tree.scale(0.5, tree.add(*apart)), rtol=1e-12)
    leaves = tree.map(lambda leaf: leaf.clone().requires_grad_(), start)
    torch.vmap(of_task, (None, 0, 0))(leaves, xs, ys).mean().backward()
    assert_close_tree(tree.map(lambda leaf: leaf.grad, leaves), together, rtol=1e-12)


def test_the_method_is_passed_on():
    """½(x·w)² in whole numbers: exact, and with inner gradients as constants."""
    x, then, w = f64([[1.0, 2.0, 3.0]]), f64([4.0, 5.0, 6.0]), f64([2.0, 3.0, 5.0])
    for method, expected in [("replay", [3780.0, 8505.0, 13230.0]), ("stopped", [-1260.0, -1575.0, -1890.0])]:
        found = bilevel.hypergradient(
            lambda w, _, x: 0.5 * (x @ w) ** 2,
            lambda w, _: 0.5 * (then @ w) ** 2,
            optim.sgd(0.5),
            w,
            lambda theta: theta,
            x,
            method=method,
        )
        assert found.grads.tolist() == expected
        assert found.params.tolist() == [-9.5, -20.0, -29.5]


def test_a_learning_rate_through_many_steps():
    """On w²/2 w_K = (1 − r)^K w, so that d(w_K²/2)/dr = −K (1 − r)^(2K − 1) w²."""
    steps, r, w = 300, 0.01, 2.0
    found = bilevel.hypergradient(
        lambda w, _theta, _batch: w**2 / 2, lambda w, _: w**2 / 2, optim.sgd, f64(r), f64(w), [()] * steps,
        checkpoints=True,
    )  # fmt: skip
    assert relative_error(found.grads, f64(-steps * (1 - r) ** (2 * steps - 1) * w**2)) <= 1e-12


def test_what_is_wrong_is_said():
    arguments = inner, outer, optim.sgd(0.1)
    with pytest.raises(InputError, match=r"^theta is a list of 2 and there are 4 batches: give one tree a step"):
        bilevel.hypergradient(*arguments, [theta_of(1)] * 2, begin(), (X, Y))
    with pytest.raises(ValueError, match=r"^outer_loss must return a scalar tensor, it returned \[6\]: take its mean"):
        bilevel.hypergradient(inner, lambda p, _: predicted(p, HELD[0]), arguments[2], theta_of(1), begin(), (X, Y))


def by_rate(theta):
    return optim.sgd(theta["lr"])


def test_a_tuple_of_batches_is_asked_about():
    pairs = tuple(zip(X, Y, strict=True))
    with pytest.raises(
        InputError, match=r"^batches is a tuple of 4 that look alike: give list\(batches\) for one a step"
    ):
        bilevel.hypergradient(inner, outer, optim.sgd(0.1), theta_of(1), begin(), pairs)
    listed, stacked = (
        bilevel.hypergradient(inner, outer, by_rate, theta_of(1), begin(), one) for one in (list(pairs), (X, Y))
    )
    assert_close_tree(listed.grads, stacked.grads, rtol=1e-14)


@pytest.mark.parametrize("made", [f64(0.1), torch.nn.Linear(1, 1), "sgd"], ids=["a rate", "a module", "a name"])
def test_what_is_no_update_rule(made):
    with pytest.raises(InputError, match=r"^optimizer: \w+ is no update rule: take mp\.sgd\(0\.1\), or lambda theta"):
        bilevel.hypergradient(inner, outer, lambda _: made, theta_of(1), begin(), (X, Y))


def test_theta_of_whole_numbers_has_no_gradient():
    with pytest.raises(InputError, match=r"^theta has no leaf of floating-point numbers.*take theta\.float\(\)$"):
        bilevel.hypergradient(inner, outer, optim.sgd(0.1), torch.tensor(3), begin(), (X, Y))


CUT_OFF = {
    "the loss calls a module": lambda net: (lambda w, _, x: (net(x) ** 2).mean() + 0.0 * w.sum(), optim.sgd(0.1)),
    "a number was made of it": lambda _: (
        lambda w, theta, _: w.sum() * theta["a"].item(),
        lambda theta: optim.sgd(theta["a"].item()),
    ),
}


@pytest.mark.parametrize("case", CUT_OFF)
def test_meta_parameters_that_do_not_reach_the_outer_loss_are_warned_of(case):
    loss, optimizer = CUT_OFF[case](torch.nn.Linear(SIZE, 1, dtype=torch.float64))
    with pytest.warns(UserWarning, match=r"^theta at \['a'\] does not reach the outer loss: its gradient is exactly"):
        found = bilevel.hypergradient(
            loss, lambda w, _: (w**2).sum(), optimizer, {"a": f64(0.5)}, torch.ones(SIZE, dtype=torch.float64), list(X)
        )
    assert float(found.grads["a"]) == 0.0


def test_only_what_is_cut_off_is_warned_of():
    theta = {"used": f64(0.5), "unused": f64([1.0, 2.0])}
    with pytest.warns(UserWarning, match="does not reach the outer loss") as said:
        bilevel.hypergradient(
            lambda w, theta, _: theta["used"] * (w**2).sum(), lambda w, _: (w**2).sum(), optim.sgd(0.1), theta,
            torch.ones(SIZE, dtype=torch.float64), list(X),
        )  # fmt: skip
    assert [str(one.message).partition(" does not")[0] for one in said] == ["theta at ['unused']"]
    # Many at once, or under a compiler, and nobody looks.
    torch.vmap(lambda a: bilevel.hypergradient(
        lambda w, a, _: a * 0 * (w**2).sum(), lambda w, _: (w**2).sum(), optim.sgd(0.1), a,
        torch.ones(SIZE, dtype=torch.float64), list(X)).grads)(f64([1.0, 2.0]))  # fmt: skip
