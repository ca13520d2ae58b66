"""Reduced Meta Pseudo Labels: a fixed teacher that is asked once, and a calibrator that learns in its place."""

import pytest
import torch
from asserts import assert_close_tree
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import estimators, methods, optim
from metapl.core import rng, targets
from metapl.core.types import Variables
from metapl.data.augment.base import Augment, noise
from metapl.data.loader import Batch
from metapl.methods import base, feedback_scale, mpl, reduced
from metapl.models.calibrator import residual
from metapl.nn import functional
from metapl.training import loop, phases
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

CLASSES = 3


def log_p(count=20, seed=0):
    return torch.log_softmax(torch.randn(count, CLASSES, generator=torch.Generator().manual_seed(seed)), -1)


def test_the_calibrator_starts_as_the_identity_and_can_become_anything_else():
    module = residual((CLASSES,), CLASSES, width=8, depth=2)
    assert torch.equal(module(log_p()), log_p())
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(module(log_p()), (log_p().argmax(-1) + 1) % CLASSES).backward()
        optimizer.step()
    assert torch.equal(module(log_p()).argmax(-1), (log_p().argmax(-1) + 1) % CLASSES)


BAD = [((4,), {}), ((1, 8, 8), {}), ((3,), {"width": 0}), ((3,), {"depth": 0})]


@pytest.mark.parametrize(("shape", "options"), BAD)
def test_a_calibrator_that_fits_nothing_is_refused(shape, options):
    with pytest.raises(ValueError, match="residual"):
        residual(shape, CLASSES, **options)


def teacher_model():
    return functional.from_module(lambda: nn.Sequential(nn.Linear(4, CLASSES), nn.BatchNorm1d(CLASSES)))


def test_what_the_teacher_said_is_its_evaluation_of_prepared_examples():
    model = teacher_model()
    network = Variables(*model.init(rng.key(0)))
    x = torch.arange(40, dtype=torch.uint8).reshape(10, 4)
    augment = Augment(noise(5.0), noise(5.0), noise(5.0), lambda x: x / 40)
    module = nn.Sequential(nn.Linear(4, CLASSES), nn.BatchNorm1d(CLASSES)).eval()
    module.load_state_dict({**network.params, **network.buffers})
    expected = torch.log_softmax(module(x / 40), -1).detach()
    torch.testing.assert_close(reduced.said(model, network, x, augment), expected)


def test_the_teacher_is_looked_up_by_example():
    table = log_p()
    batch = Batch(torch.zeros(2, 4), torch.zeros(2), torch.zeros(3, 4), torch.tensor([5, 1]), torch.tensor([7, 7, 0]))
    found = reduced.lookup(table)({"labelled": batch.x_labelled, "strong": batch.x_unlabelled}, batch)
    assert torch.equal(found["labelled"], table[[5, 1]])
    assert torch.equal(found["strong"], table[[7, 7, 0]])
    with pytest.raises(ValueError, match="positions"):
        reduced.lookup(table)({}, batch._replace(labelled=None))


def test_the_student_is_taught_what_the_fixed_teacher_said_and_the_calibrator_is_taught_by_the_student():
    """One step by hand: gradient descent of the student on log p, and a double backward for the feedback."""
    table, x = log_p().double(), torch.randn(20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch = Batch(x[:3], torch.arange(3), x[8:14], torch.arange(3), torch.arange(8, 14))
    rate, weight = 0.3, 0.7
    student = functional.cast(functional.from_module(lambda: nn.Linear(4, CLASSES)), torch.float64)
    calibrator = functional.cast(functional.from_module(lambda: residual((CLASSES,), CLASSES, width=5)), torch.float64)
    recipe = base.Recipe(feedback_weight=weight, feedback_size=feedback_scale.raw(), uda_weight=0.0)
    method = mpl.meta_pseudo_labels(
        base.Trainable(calibrator, optim.sgd(rate)),
        base.Trainable(student, optim.sgd(rate)),
        estimators.exact(),
        targets.SOFT,
        Augment(lambda x, key: x, lambda x, key: 2 * x),
        recipe,
        reduced.lookup(table),
    )
    start = method.init(rng.key(0))
    after, _ = method.step(start, batch, rng.key(1))

    def exam(theta):
        student_state = nn.Linear(4, CLASSES).double()
        student_state.load_state_dict(start.student.params)
        loss = F.cross_entropy(student_state(2 * x[8:14]), theta.softmax(-1))
        grads = torch.autograd.grad(loss, list(student_state.parameters()), create_graph=True)
        moved = {n: p - rate * g for (n, p), g in zip(student_state.named_parameters(), grads, strict=True)}
        return moved, F.cross_entropy(F.linear(x[:3], moved["weight"], moved["bias"]), torch.arange(3))

    module = residual((CLASSES,), CLASSES, width=5).double()
    module.load_state_dict(start.teacher.params)
    theta = module(table[8:14])
    moved, loss = exam(theta)
    assert_close_tree(after.student.params, {name: value.detach() for name, value in moved.items()}, rtol=1e-12)
    total = F.cross_entropy(module(table[:3]), torch.arange(3)) + weight * loss
    grads = torch.autograd.grad(total, list(module.parameters()))
    taught = {n: (p - rate * g).detach() for (n, p), g in zip(module.named_parameters(), grads, strict=True)}
    assert_close_tree(after.teacher.params, taught, rtol=1e-10, atol=1e-12)


def test_the_composed_teacher_corrects_what_the_fixed_one_says():
    fixed, corrector = teacher_model(), functional.from_module(lambda: nn.Linear(CLASSES, CLASSES))
    networks = {"teacher": Variables(*corrector.init(rng.key(0))), "ema": Variables({}, {})}
    base = Variables(*fixed.init(rng.key(1)))
    found = reduced.composing(base, networks)
    assert set(found) == {"teacher", "ema"}
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    logits, _ = reduced.composed(fixed, corrector).apply(*found["teacher"], x, train=False)
    said = torch.log_softmax(fixed.apply(*base, x, train=False)[0], -1)
    correction = networks["teacher"].params
    torch.testing.assert_close(logits, F.linear(said, correction["weight"], correction["bias"]))


@pytest.mark.parametrize("network", ["", "mlp:width=12,depth=1"])
def test_a_run_leaves_the_fixed_teacher_as_it_was_and_corrects_it(network):
    options = {"labels": 40, "steps": 30, "baselines": False, "finetune_steps": 0, "guide": "none"}
    experiment = prepare(TrainConfig(method="reduced", model="mlp:width=16", teacher_model=network, **options))
    *events, finished = phases.run(experiment)
    result = finished.result
    assert [event.phase for event in events if isinstance(event, loop.Reported)] == ["fixed", "reduced"]
    assert set(result.networks) == {"fixed", "teacher", "student", "ema"}
    fixed, teacher = result.networks["fixed"], result.networks["teacher"]
    for name, value in fixed.params.items():
        assert torch.equal(teacher.params[f"fixed/{name}"], value)
    assert fixed.params["1.weight"].shape[0] == (12 if network else 16)
    last = next(name for name in teacher.params if name.startswith("calibrator/") and name.endswith("8.weight"))
    assert teacher.params[last].abs().max() > 0
    assert result.test["teacher"]["nll"] != result.test["fixed"]["nll"]


@pytest.mark.parametrize(("weight", "alone"), [(0.0, "supervised"), (1.0, "uda")])
def test_the_fixed_teacher_learns_by_uda(weight, alone):
    """What UDA makes of the same start, views and batches; without a weight, what supervised learning does."""
    sizes = {"labels": 40, "batch": 32, "steps": 4, "baselines": False, "finetune_steps": 0}
    uda = {"uda_weight": weight, "uda_threshold": 0.0, "guide": "none"}
    experiment = prepare(TrainConfig(method="reduced", model="mlp:width=16,depth=1", **uda, **sizes))
    method = methods.find(alone).phases[-1].build(experiment.given, {})
    phase = loop.Phase(alone, method, phases.batches(experiment), experiment.config.steps, experiment.keys.of("fixed"))
    *_, last = loop.steps(phase, loop.start(phase))
    found = phases.finish(phases.run(experiment)).networks["fixed"]
    assert_close_tree(found, last.networks["ema"], rtol=0, atol=0)
