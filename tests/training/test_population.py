"""A population beside the single runs of its members: the same numbers for every kind of run."""

import math
import sys
import types

import pytest
import torch
from asserts import assert_close_tree, relative_error
from populations import DIGITS, NUMBERS, config, pair
from torch import nn

from metapl import methods
from metapl.data.augment.presets import VIEWS
from metapl.estimators import ESTIMATORS
from metapl.nn import functional
from metapl.optim import OPTIMIZERS
from metapl.registry.errors import InputError
from metapl.training import loop, phases, population
from metapl.training.config import VARYING
from metapl.training.experiment import prepare
from metapl.training.loop import Reported, Stepped
from metapl.training.phases import Finished

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def double(experiment):
    data, models = experiment.data, experiment.models
    student, teacher = (functional.cast(model, torch.float64) for model in models[:2])
    return experiment._replace(
        data=data._replace(x=data.x.double(), x_test=data.x_test.double()),
        models=models._replace(student=student, teacher=teacher),
    )


def alone(given, kind=double):
    *events, finished = phases.run(kind(prepare(given)), strict=False)
    return finished.result, [event for event in events if isinstance(event, Reported)]


def together(configs, kind=double):
    members = [kind(one) for one in population.members(configs)]
    events = list(population.run(members))
    results = [event.result for _, event in events if isinstance(event, Finished)]
    assert [index for index, _ in events[-len(members) :]] == list(range(len(members)))
    told = [(index, event) for index, event in events if isinstance(event, Reported)]
    reports = [[event for owner, event in told if owner == index] for index in range(len(members))]
    return list(zip(results, reports, strict=True))


def numbers(result):
    """All of a result but how networks that were fitted at once were set, which is text."""
    calibrated = {name: dict(values) for name, values in result.calibrated.items()}
    return {**result._asdict(), "calibrated": calibrated, "chosen": {}}


def assert_run(found, expected, rtol):
    """The result and every report on the way."""
    (result, reports), (truth, told) = found, expected
    assert result.chosen == truth.chosen
    assert_close_tree(numbers(result), numbers(truth), rtol, atol=1e-3 * rtol)
    assert [one[:3] for one in reports] == [one[:3] for one in told]
    for one, other in zip(reports, told, strict=True):
        assert_close_tree((one.metrics, one.networks), (other.metrics, other.networks), rtol, atol=1e-3 * rtol)


def trained(networks):
    """Without the panel, whose networks may be of different sizes."""
    return {name: network for name, network in networks.items() if name not in methods.PANEL}


def assert_same(configs, rtol=1e-10, kind=double):
    truths = [alone(one, kind) for one in configs]
    first, *others = [trained(result.networks) for result, _ in truths]
    assert all(relative_error(one, first) > 1e-4 for one in others), "the members are the same"
    for found, expected in zip(together(configs, kind), truths, strict=True):
        assert_run(found, expected, rtol)


CASES = {
    "every phase": {"baselines": True, "steps": 6, "report_every": 6},
    "first-order": {"grad": "first-order"},
    "none": {"grad": "none", "clip": 0.1},
    "drawn labels": {"grad": "score"},
    "uda": {"method": "uda"},
    "supervised": {"method": "supervised", "optimizer": "sgd", "clip": 0.0},
    "pseudo-labels": {"method": "pseudo-labels", "pseudo_labels": "sampled"},
    "dropout": {"model": "mlp:width=6,depth=1,dropout=0.3"},
    "unroll": {"unroll": 2, "finetune_batch": 3},
    "adam": {"optimizer": "adam", "lr": 0.02, "clip": 0.2},
    "another teacher, with its pace": {"teacher_model": "mlp:width=3,depth=2", "warmup": 2, "student_wait": 3},
    "a ramp": {"uda_ramp": 9, "labelled_in_unlabelled": False},
    "microbatches": {"microbatch": 4, "steps": 6, "report_every": 3},
    "zeros": {"uda_weight": 0.0, "smoothing": 0.0},
    "images": {**DIGITS, "labels": 20},
    "a guide": {"guide": "consensus"},
    "a guide of images": {**DIGITS, "method": "uda", "guide": "consensus", "alignment": "uniform"},
    "convolutions": {**DIGITS, "model": "convnet:width=3,depth=1", "steps": 3},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_a_member_is_what_its_own_run_is(options):
    assert_same(pair(**options))


@pytest.mark.slow
def test_a_hundred_steps():
    assert_same(pair(steps=100, finetune_steps=20, report_every=40))


@pytest.mark.parametrize("name", VARYING)
def test_one_number_alone(name):
    shared = {"steps": 8, "guide": "consensus" if name == "guide_weight" else "none"}
    assert_same([config(**shared), config(**shared, **{name: NUMBERS[name]})])


@pytest.mark.parametrize("seeds", [(3,), (3, 1, 4, 15)])
def test_seeds_alone(seeds):
    assert_same([config(steps=8, seed=seed) for seed in seeds])


def test_in_single_precision_too():
    assert_same(pair(**DIGITS), 1e-3, lambda experiment: experiment)
    result = together(pair(**DIGITS), lambda experiment: experiment)[1][0]
    assert {leaf.dtype for network in result.networks.values() for leaf in network.params.values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("grad", ESTIMATORS)
def test_every_estimator_is_the_same_or_refused(grad):
    """Two record gradients themselves, which a transform forbids; `studies.execution` goes one by one."""
    shared = {"steps": 3, "finetune_steps": 0, "grad": grad}
    configs = [config(**shared), config(**shared, seed=1, lr=0.4)]
    if grad in ("higher", "unroll"):
        with pytest.raises(RuntimeError, match="requires_grad_"):
            together(configs)
    else:
        assert_same(configs)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimiser_is_the_same(optimizer):
    shared = {"optimizer": optimizer, "steps": 4, "method": "supervised", "lr": 0.01}
    assert_same([config(**shared), config(**{**shared, "seed": 1, "lr": 0.03})])


@pytest.mark.parametrize("augment", [name for name in VIEWS if name != "jitter"])
def test_every_view_of_images_is_the_same_or_refused(augment):
    """RandAugment sorts a batch by what it does to each image, which depends on numbers."""
    shared = {**DIGITS, "augment": augment}
    configs = [config(**shared), config(**shared, seed=1)]
    if augment in ("small", "large"):
        with pytest.raises(RuntimeError, match="data pointer"):
            together(configs, lambda experiment: experiment)
    else:
        assert_same(configs, 1e-4, lambda experiment: experiment)


def normed(shape, classes):
    return nn.Sequential(nn.Linear(*shape, 5), nn.BatchNorm1d(5, momentum=0.3), nn.ReLU(), nn.Linear(5, classes))


class Noisy(nn.Linear):
    def __init__(self, shape, classes):
        super().__init__(*shape, classes)

    def forward(self, x):
        return super().forward(x + torch.rand(2) if self.training else x)


@pytest.fixture
def mine(monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(normed=normed, noisy=Noisy))


@pytest.mark.parametrize("options", [{}, {"method": "supervised"}, {"batch_norm_batch": 4}])
def test_running_statistics_are_those_of_the_own_run(mine, options):
    configs = pair(model="module:mine:normed", steps=6, report_every=6, **options)
    assert_same(configs)
    networks = together(configs)[1][0].networks
    name = "supervised" if options.get("method") else "student"
    mean = networks[name].buffers["1.running_mean"]
    assert mean.shape == (5,)
    assert (mean.abs() > 1e-3).all()


def test_what_draws_from_hidden_generators_is_refused(mine):
    """Rather than drawing one mask for all."""
    with pytest.raises(RuntimeError, match="random"):
        together([config(model="module:mine:noisy", seed=seed) for seed in (0, 1)])


@pytest.mark.parametrize("method", ["mpl", "supervised"])
def test_a_member_that_diverges_leaves_the_others_alone(method):
    wild = {"lr": 1e30, "teacher_lr": 1e30}
    shared = {"method": method, "clip": 0.0, "steps": 12}
    configs = [config(**shared), config(**shared, **wild), config(**shared, seed=2)]
    found = together(configs)
    for index in (0, 2):
        assert_run(found[index], alone(configs[index]), 1e-10)
    for result, reports in (found[1], alone(configs[1])):
        assert all(leaf.isnan().any() for network in result.networks.values() for leaf in network.params.values())
        assert math.isnan(reports[-1].metrics["supervised"])


def test_a_run_of_its_own_may_be_strict():
    experiment = prepare(config(clip=0.0, lr=1e30, teacher_lr=1e30))
    with pytest.raises(InputError, match="no longer finite"):
        phases.finish(phases.run(experiment))
    assert phases.finish(phases.run(experiment, strict=False)).networks


def test_every_step_of_all_is_told_once():
    events = list(population.run(population.members(pair(steps=3))))
    ticks = [event[:3] for index, event in events if isinstance(event, Stepped) and index is None]
    assert len(ticks) == sum(isinstance(event, Stepped) for _, event in events)
    assert ticks == [*(("mpl", step, 3) for step in (1, 2, 3)), *(("finetune", step, 3) for step in (1, 2, 3))]


@pytest.mark.parametrize("unroll", [1, 2])
def test_the_rate_counts_the_images_of_all(monkeypatch, unroll):
    """A clock that goes on by a second whenever it is looked at."""
    seconds = iter(range(1000))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(seconds)))
    configs = [config(**{**DIGITS, "unroll": unroll}, seed=seed) for seed in (0, 1, 2)]
    for count in (1, 3):
        rates = [at for _, at in population.run(population.members(configs[:count])) if isinstance(at, Reported)]
        assert {one.images_per_second for one in rates} == {count * 3.0 * (6 + 16 * unroll)}
