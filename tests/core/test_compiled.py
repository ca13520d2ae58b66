"""`torch.compile(fullgraph=True)` of whole steps: one graph, the same numbers, and no second graph at the next steps.

The truth is the same function without a compiler, which other tests hold to differences and to plain autograd.
"""

import contextlib
import shutil

import pytest
import torch
import torch._dynamo
from asserts import relative_error
from paced import quick_and_slow
from torch import nn

from metapl import estimators, optim
from metapl.core import inside, rng, targets, tree
from metapl.core.unrolling import scan
from metapl.data.augment.base import Augment, identity
from metapl.data.loader import Batch
from metapl.methods.base import Recipe, Trainable
from metapl.methods.mpl import meta_pseudo_labels
from metapl.nn import functional

f64 = torch.float64


@contextlib.contextmanager
def one_graph():
    """Within the block as many graphs are made as are compiled for the first time: one."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]
    torch._dynamo.reset()


def compiled(fn, backend="aot_eager"):
    return torch.compile(fn, fullgraph=True, backend=backend)


def penalised(w, x, rate):
    return ((x @ w).tanh() ** 2).sum() + rate * (w**4).sum()


def trained(how):
    def outer(w, rate, xs):
        def step(w, x):
            value, _, grads = inside.value_and_gradient(penalised, w, x, rate)
            return w - 0.1 * grads, value

        w, values = scan(step, w, xs, **how)
        return (w**2).sum() + values.sum()

    return outer


HOWS = {
    "replay": ({}, 3),
    "twenty": ({}, 20),
    "reverse": ({"method": "reverse"}, 3),
    "log": ({"checkpoints": "log"}, 3),
    "last": ({"last": 2}, 3),
}


@pytest.mark.parametrize("how", quick_and_slow(HOWS, ["replay"]))
@pytest.mark.parametrize("way", ["func.grad", "backward"])
def test_a_loop_of_steps(way, how):
    how, steps = HOWS[how]
    w, rate, xs = (rng.normal(key, shape, f64) for key, shape in zip(
        rng.split(rng.key(0), 3), ((3,), (), (steps, 5, 3)), strict=True))  # fmt: skip
    outer = trained(how)
    expected = list(torch.func.grad(outer, argnums=(0, 1, 2))(w, rate, xs))
    with one_graph():
        if way == "func.grad":
            fast = compiled(torch.func.grad(outer, argnums=(0, 1, 2)))
            found = [fast(w, rate, xs) for _ in range(3)][-1]
        else:
            fast = compiled(outer)
            for _ in range(3):
                leaves = [leaf.clone().requires_grad_() for leaf in (w, rate, xs)]
                found = torch.autograd.grad(fast(*leaves), leaves, materialize_grads=True)
    assert relative_error(list(found), expected) <= 1e-12


NORMS = {
    "none": nn.Identity,
    "batch": lambda: nn.BatchNorm1d(4),
    "batch, one by one": lambda: nn.BatchNorm1d(4, track_running_stats=False),
    "layer": lambda: nn.LayerNorm(4),
    "group": lambda: nn.GroupNorm(2, 4),
    "rms": lambda: nn.RMSNorm(4),
}


@pytest.mark.parametrize("norm", quick_and_slow(NORMS, ["none"]))
def test_a_step_of_maml_over_tasks(norm):
    """With running statistics too; and where torch's own derivative under vmap is wrong, as without a compiler."""
    build = lambda: nn.Sequential(nn.Linear(3, 4), NORMS[norm](), nn.Tanh(), nn.Linear(4, 2))  # noqa: E731
    model = functional.cast(functional.from_module(build), f64)
    params, buffers = model.init(rng.key(0))
    params = {name: value + 0.3 * rng.normal(rng.key(5), value.shape, f64) for name, value in params.items()}
    xs = rng.normal(rng.key(1), (3, 8, 3), f64)

    def loss(params, x):
        return (model.apply(params, buffers, x, train=True)[0] ** 2).mean()

    def outer(params, xs):
        def task(x):
            return loss(tree.sub(params, tree.scale(0.1, inside.gradient(loss, params, x)[0])), x)

        return torch.vmap(task)(xs).mean()

    expected = torch.func.grad(outer)(params, xs)
    with one_graph():
        fast = compiled(torch.func.grad(outer))
        found = [fast(params, xs) for _ in range(3)][-1]
    assert relative_error(list(found.values()), list(expected.values())) <= 1e-12


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def convolutions():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


STEPS = {
    "perceptron": (perceptron, targets.SOFT, {}),
    "convolutions, sampled": (convolutions, targets.SAMPLED, {}),
    "two inner steps": (perceptron, targets.SOFT, {"unroll": 2}),
}


def method_and_batch(build, labels, dtype=f64, **recipe):
    model = functional.cast(functional.from_module(build), dtype)
    trainable = Trainable(model, optim.sgd(0.05, momentum=0.9, nesterov=True, weight_decay=5e-4))
    augment = Augment(identity, identity)
    method = meta_pseudo_labels(trainable, trainable, estimators.exact(), labels, augment, Recipe(**recipe))
    x, y, more = (rng.normal(rng.key(2), (6, 1, 4, 4), dtype), rng.randint(rng.key(3), (6,), 3), rng.key(4))
    return method, Batch(x, y, rng.normal(more, (8, 1, 4, 4), dtype))


def after(step, state, batch, count):
    metrics = {}
    for index in range(count):
        state, metrics = step(state, batch, rng.key(index))
    return tree.leaves((state, metrics))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's, of its own doing
@pytest.mark.slow
@pytest.mark.parametrize("case", STEPS)
def test_a_step_of_meta_pseudo_labels(case):
    """Teacher, student, feedback, optimisers and moving average in one graph; its states feed the next step."""
    build, labels, recipe = STEPS[case]
    method, batch = method_and_batch(build, labels, **recipe)
    state = method.init(rng.key(0))
    expected = after(method.step, state, batch, 4)
    with one_graph():
        found = after(compiled(method.step), state, batch, 4)
    assert relative_error(found, expected) <= 1e-10


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's generator of code uses torch.jit
def test_code_that_is_generated_has_the_same_numbers():
    method, batch = method_and_batch(perceptron, targets.SOFT, torch.float32)
    state = method.init(rng.key(0))
    expected = after(method.step, state, batch, 20)
    with one_graph():
        found = after(compiled(method.step, "inductor"), state, batch, 20)
    assert relative_error(found, expected) <= 1e-5


def test_approximations_are_refused():
    w, xs = torch.ones(3, dtype=f64), torch.ones(2, 5, 3, dtype=f64)
    for method in ("stopped", "difference"):
        outer = trained({"method": method})
        with pytest.raises(Exception, match=r"torch.compile takes the exact methods of scan"):
            compiled(outer, "eager")(w, w[0], xs)
        torch._dynamo.reset()
    with pytest.raises(Exception, match=r"torch.compile takes exact\(\) in reverse"):
        _refused_route()
    torch._dynamo.reset()


def _refused_route():
    method, batch = method_and_batch(perceptron, targets.SOFT)
    trainable = Trainable(functional.cast(functional.from_module(perceptron), f64), optim.sgd(0.1))
    method = meta_pseudo_labels(
        trainable,
        trainable,
        estimators.exact(route="forward"),
        targets.SOFT,
        Augment(identity, identity),
        Recipe(),
    )
    compiled(method.step, "eager")(method.init(rng.key(0)), batch, rng.key(1))


def test_draws_are_those_without_a_compiler():
    """They are multiplied as unsigned numbers there; with positions in a larger array too."""
    rows = torch.tensor([0, 7, 2**20])

    def drawn(key):
        return rng.bits(key, (3, 5)), rng.bits(key, (3, 5), rows=rows), rng.uniform(key, (3,))

    with one_graph():
        assert all(map(torch.equal, compiled(drawn, "eager")(rng.key(4)), drawn(rng.key(4))))
