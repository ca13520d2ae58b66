"""What a GPU computes, against the CPU in double precision. `pytest -m gpu` runs them, and `benchmarks/gpu.py` does.

`METAPL_GPU=cpu pytest -m gpu` shows, where there is no GPU, that nothing but the device is missing.
"""

import os
from functools import partial

import pytest
import torch
from asserts import assert_close_tree
from problems import REFUSED, build, instance_of, make

from metapl import estimators, models, optim
from metapl.core import rng, targets, tree
from metapl.data.augment.base import Augment, identity
from metapl.data.loader import Batch
from metapl.estimators import ESTIMATORS
from metapl.methods.base import Recipe, Trainable
from metapl.methods.mpl import meta_pseudo_labels
from metapl.nn import functional
from metapl.nn.layout import channels_last
from metapl.nn.precision import lowered
from metapl.training import experiment, phases
from metapl.training.config import TrainConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
]

NAME = os.environ.get("METAPL_GPU", "cuda")


@pytest.fixture(scope="module")
def gpu():
    if NAME.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a GPU, or METAPL_GPU=cpu")
    return torch.device(NAME)


def test_keys_give_the_same_numbers(gpu):
    key = rng.key(3)
    for draw in (rng.bits, rng.uniform, partial(rng.randint, high=7)):
        assert torch.equal(draw(key.to(gpu), (1000,)).cpu(), draw(key, (1000,)))
    assert [int(one) for one in rng.split(key.to(gpu), 3)] == [int(one) for one in rng.split(key, 3)]


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
@pytest.mark.parametrize("network", ["mlp", "batchnorm", "layernorm"])
@pytest.mark.parametrize("name", [*ESTIMATORS, "exact:route=forward", "exact:route=reverse", "exact:route=difference"])
def test_feedback(gpu, name, network, rule):
    if rule in REFUSED.get(name, ()):
        pytest.skip("a rule that the estimator refuses")
    estimator = build(name)
    case = make(network, rule, labels=estimator.targets[0])
    instance = instance_of(case)
    expected, _ = estimator.estimate(instance, estimator.init())
    there = instance._replace(**{field: tree.to(getattr(instance, field), gpu) for field in MOVED})
    found, _ = estimator.estimate(there, tree.to(estimator.init(), gpu))
    assert found.grads[0].device.type == gpu.type
    assert_close_tree(tree.to(found.grads, "cpu"), expected.grads, rtol=1e-7, atol=1e-10)
    assert_close_tree(tree.to(found.state, "cpu"), expected.state, rtol=1e-7, atol=1e-10)


MOVED = ("thetas", "state", "inner_batches", "outer_batch", "key")


def running(name, shape, device, dtype, *, change=lambda model: model):
    """A training of a student and a teacher, as a function of the number of steps to the state after them."""
    model = change(channels_last(functional.cast(functional.from_module(lambda: models.build(name, shape, 10)), dtype)))
    one = Trainable(model, optim.sgd(0.05, momentum=0.9, nesterov=True, weight_decay=5e-4))
    method = meta_pseudo_labels(
        one, one, estimators.exact(), targets.SOFT, Augment(identity, identity), Recipe(uda_threshold=0.0)
    )
    x, u = (rng.normal(rng.key(index), (count, *shape), dtype) for index, count in ((1, 8), (2, 24)))
    batch = Batch(*tree.to((x, rng.randint(rng.key(3), (8,), 10), u), device))

    def after(steps, step=method.step):
        state, metrics = tree.to(method.init(rng.key(0)), device), {}
        for index in range(steps):
            state, metrics = step(state, batch, rng.fold_in(rng.key(5), index))
        return state, metrics

    return after, method.step


@pytest.mark.parametrize(("name", "shape"), [("mlp:width=32", (1, 8, 8)), ("convnet:width=8,depth=1", (3, 8, 8))])
def test_twenty_steps(gpu, name, shape):
    expected, _ = running(name, shape, torch.device("cpu"), torch.float64)[0](20)
    found, metrics = running(name, shape, gpu, torch.float64)[0](20)
    assert float(metrics["feedback"]) > 0.0
    assert_close_tree(tree.to(found, "cpu"), expected, rtol=1e-6, atol=1e-9)


def test_twenty_steps_compiled(gpu):
    after, step = running("convnet:width=8,depth=1", (3, 8, 8), gpu, torch.float32)
    expected, _ = after(20)
    found, _ = after(20, torch.compile(step, fullgraph=True))
    assert_close_tree(found, expected, rtol=1e-3, atol=1e-4)


def test_bfloat16_moves_networks_the_same_way(gpu):
    def moved(change):
        after, _ = running("convnet:width=8,depth=1", (3, 8, 8), gpu, torch.float32, change=change)
        return tree.sub(after(3)[0].teacher.params, after(0)[0].teacher.params)

    full, low = moved(lambda model: model), moved(partial(lowered, name="bf16"))
    assert tree.dot(full, low) / (tree.norm(full) * tree.norm(low)) > 0.99


def test_a_population_is_its_members(gpu):
    after, step = running("mlp:width=16", (1, 8, 8), gpu, torch.float64)
    states = [after(steps)[0] for steps in (1, 2)]
    x = rng.normal(rng.key(1), (8, 1, 8, 8), torch.float64)
    batch = Batch(*tree.to((x, rng.randint(rng.key(3), (8,), 10), x), gpu))
    both = tree.map(lambda *leaves: torch.stack(leaves), *states)
    found, _ = torch.vmap(lambda state: step(state, batch, rng.key(1)))(both)
    expected = tree.map(lambda *leaves: torch.stack(leaves), *(step(state, batch, rng.key(1))[0] for state in states))
    assert_close_tree(found, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("more", [{"method": "mpl", "grad": "exact"}, {"method": "uda"}])
def test_a_whole_run(gpu, more):
    def tested(device):
        config = TrainConfig(model="convnet:width=8,depth=1", steps=8, finetune_steps=4, device=str(device), **more)
        return phases.finish(phases.run(experiment.prepare(config))).test

    found, expected = tested(gpu), tested("cpu")
    assert {*found} == {*expected}
    for name, row in expected.items():
        assert found[name]["nll"] == pytest.approx(row["nll"], rel=0.02)
