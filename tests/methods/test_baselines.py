"""The baselines against `torch.optim` and a plain training step."""

import copy

import pytest
import torch
from asserts import assert_close_tree, assert_pure
from problems import CLASSES, convnet, mlp
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import optim
from metapl.core import rng
from metapl.core.targets import TARGETS
from metapl.data.augment.base import Augment, noise
from metapl.data.loader import Batch
from metapl.methods import base
from metapl.methods.pseudo_labels import Fixed, pseudo_labels
from metapl.methods.supervised import supervised
from metapl.nn import functional

NETWORKS = {"mlp": (mlp, (4,)), "batchnorm": (convnet, (1, 4, 4))}
SGD = {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
STEPS = 3

# Two views that differ and draw nothing, so that it shows which of them goes where.
VIEWS = Augment(weak=lambda x, key: 1.1 * x + 0.2, strong=lambda x, key: 0.8 * x - 0.1)

# 1/16 lies below the early decays (step + 1) / (step + 10), so it is the decay from the first step on.
BASE = base.Recipe(uda_temperature=0.2, uda_threshold=0.6, ema=0.0625)
RECIPES = {
    "supervised": BASE._replace(uda_weight=0.0),
    "smoothing": BASE._replace(uda_weight=0.0, smoothing=0.1),
    "uda": BASE,
    "uda-ramp": BASE._replace(uda_ramp=4, uda_weight=0.75, smoothing=0.1),
}


def make_batch(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = NETWORKS[network][1]
    x_labelled = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    x_unlabelled = torch.randn(5, *shape, generator=generator, dtype=torch.float64)
    return Batch(x_labelled, torch.randint(CLASSES, (4,), generator=generator), x_unlabelled)


def trainable(network, lr=0.2):
    return base.Trainable(functional.from_module(NETWORKS[network][0]), optim.sgd(lr, **SGD))


def module_of(network, found):
    """The `nn.Module` with a network's parameters and buffers."""
    module = NETWORKS[network][0]().train()
    module.load_state_dict({**found.params, **found.buffers})
    return module


def run(method, network, steps=STEPS):
    state = method.init(rng.key(1))
    for step in range(steps):
        state, _ = method.step(state, make_batch(network, seed=step), rng.fold_in(rng.key(2), step))
    return state


def train_by_torch(network, start, loss, steps=STEPS, decay=0.0625):
    """Steps of `torch.optim.SGD` on `loss(module, batch, step)`; the module and the average of its weights."""
    module = module_of(network, start)
    average = copy.deepcopy(module)
    optimizer = torch.optim.SGD(module.parameters(), 0.2, **SGD)
    for step in range(steps):
        optimizer.zero_grad()
        loss(module, make_batch(network, seed=step), step).backward()
        optimizer.step()
        for mean, value in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
            mean.copy_(decay * mean + (1.0 - decay) * value if value.is_floating_point() else value)
    return module, average


def loss_of(recipe):
    """Cross entropy of the labelled examples, plus the consistency of the two views of the unlabelled ones."""

    def loss(module, batch, step):
        x = VIEWS.weak(batch.x_labelled, None)
        if not recipe.uda_weight:
            return F.cross_entropy(module(x), batch.y_labelled, label_smoothing=recipe.smoothing)
        x = torch.cat([x, VIEWS.weak(batch.x_unlabelled, None), VIEWS.strong(batch.x_unlabelled, None)])
        labelled, weak, strong = module(x).split([4, 5, 5])
        target = torch.softmax(weak.detach() / recipe.uda_temperature, dim=-1)
        sure = (target.max(-1).values >= recipe.uda_threshold).double()
        weight = recipe.uda_weight * (min(1.0, (step + 1) / recipe.uda_ramp) if recipe.uda_ramp else 1.0)
        consistency = (F.cross_entropy(strong, target, reduction="none") * sure).mean()
        return F.cross_entropy(labelled, batch.y_labelled, label_smoothing=recipe.smoothing) + weight * consistency

    return loss


def assert_same(found, module, rtol=1e-10):
    expected = (dict(module.named_parameters()), dict(module.named_buffers()))
    assert_close_tree((found.params, found.buffers), expected, rtol=rtol)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_supervised_and_uda_equal_torchs_steps(network, recipe):
    method = supervised(trainable(network), VIEWS, RECIPES[recipe])
    start = method.init(rng.key(1)).train_state
    found = method.networks(run(method, network))
    module, average = train_by_torch(network, start, loss_of(RECIPES[recipe]))
    assert list(found) == ["model", "ema"]
    assert_same(found["model"], module)
    assert_same(found["ema"], average)


def test_supervised_logs_its_losses():
    method = supervised(trainable("mlp"), VIEWS, BASE)
    state = method.init(rng.key(1))
    batch = make_batch("mlp")
    _, metrics = method.step(state, batch, rng.key(2))
    module = module_of("mlp", state.train_state)
    expected = F.cross_entropy(module(VIEWS.weak(batch.x_labelled, None)), batch.y_labelled)
    assert sorted(metrics) == ["supervised", "uda"]
    torch.testing.assert_close(metrics["supervised"], expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        metrics["supervised"] + metrics["uda"], loss_of(BASE)(module, batch, 0).detach(), rtol=1e-12, atol=0
    )


def test_supervised_never_looks_at_unlabelled_examples():
    method = supervised(trainable("batchnorm"), VIEWS, RECIPES["supervised"])
    state, batch = method.init(rng.key(1)), make_batch("batchnorm")
    one, _ = method.step(state, batch, rng.key(2))
    other, _ = method.step(state, batch._replace(x_unlabelled=batch.x_unlabelled + 1.0), rng.key(2))
    assert_close_tree(one, other, rtol=0)


def warm_teacher(network):
    """Weights and running statistics after some training, so that training and evaluation mode differ."""
    method = supervised(trainable(network), VIEWS, RECIPES["supervised"])
    return method.networks(run(method, network, steps=6))["model"]


@pytest.mark.parametrize("labels", ["soft", "argmax"])
@pytest.mark.parametrize("network", NETWORKS)
def test_pseudo_labels_equal_torchs_steps_on_a_fixed_teacher(network, labels):
    teacher = warm_teacher(network)
    fixed = Fixed(functional.from_module(NETWORKS[network][0]), teacher, TARGETS[labels])
    method = pseudo_labels(trainable(network), fixed, VIEWS, BASE._replace(smoothing=0.1))
    judge = module_of(network, teacher).eval()

    def loss(module, batch, step):
        with torch.no_grad():
            said = judge(VIEWS.weak(batch.x_unlabelled, None))
        target = torch.softmax(said, dim=-1) if labels == "soft" else said.argmax(-1)
        return F.cross_entropy(module(VIEWS.strong(batch.x_unlabelled, None)), target, label_smoothing=0.1)

    module, average = train_by_torch(network, method.init(rng.key(1)).train_state, loss)
    found = method.networks(run(method, network))
    assert_same(found["model"], module)
    assert_same(found["ema"], average)


def test_a_fixed_teacher_stays_as_it_is():
    teacher = warm_teacher("batchnorm")
    before = copy.deepcopy(teacher)
    fixed = Fixed(functional.from_module(convnet), teacher, TARGETS["sampled"])
    run(pseudo_labels(trainable("batchnorm"), fixed, VIEWS, BASE), "batchnorm")
    assert_close_tree(tuple(teacher), tuple(before), rtol=0)


def test_pseudo_labels_never_look_at_labelled_examples():
    fixed = Fixed(functional.from_module(mlp), warm_teacher("mlp"), TARGETS["soft"])
    method = pseudo_labels(trainable("mlp"), fixed, VIEWS, BASE)
    state, batch = method.init(rng.key(1)), make_batch("mlp")
    other = batch._replace(x_labelled=batch.x_labelled + 1.0, y_labelled=(batch.y_labelled + 1) % CLASSES)
    assert_close_tree(method.step(state, batch, rng.key(2)), method.step(state, other, rng.key(2)), rtol=0)


@pytest.mark.parametrize("network", NETWORKS)
def test_finetuning_goes_on_from_its_start(network):
    start = warm_teacher(network)
    before = copy.deepcopy(start)
    method = supervised(trainable(network), VIEWS, RECIPES["supervised"], start)
    state = method.init(rng.key(3))
    assert_close_tree(tuple(method.networks(state)["model"]), tuple(start), rtol=0)
    assert_close_tree(tuple(method.networks(state)["ema"]), tuple(start), rtol=0)
    assert int(state.train_state.opt_state.step) == 0
    module, _ = train_by_torch(network, start, loss_of(RECIPES["supervised"]))
    assert_same(method.networks(run(method, network))["model"], module)
    assert_close_tree(tuple(start), tuple(before), rtol=0)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", ["uda", "pseudo-labels"])
def test_a_step_is_pure(network, name):
    augment = Augment(noise(0.1), noise(0.5))
    if name == "uda":
        method = supervised(trainable(network), augment, BASE)
    else:
        model = functional.from_module(NETWORKS[network][0])
        fixed = Fixed(model, warm_teacher(network), TARGETS["sampled"])
        method = pseudo_labels(trainable(network), fixed, augment, BASE)
    state, _ = method.step(method.init(rng.key(1)), make_batch(network), rng.key(2))
    assert_pure(method.step, state, make_batch(network, seed=1), rng.key(3))
