"""A run that is stopped after any step and goes on from a file is, bit for bit, the run that was never stopped."""

import itertools

import pytest
import torch

from metapl import methods
from metapl.core import tree
from metapl.core.types import Variables
from metapl.estimators import ESTIMATORS
from metapl.files import sealed
from metapl.methods import METHODS
from metapl.optim import OPTIMIZERS
from metapl.registry.errors import InputError
from metapl.training import loop, phases, population, stored
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

TINY = {
    "method": "mpl",
    "guide": "none",
    "model": "mlp:width=6,depth=1",
    "device": "cpu",
    "steps": 3,
    "finetune_steps": 2,
    "batch": 12,
    "labels": 20,
    "validation": 30,
    "report_every": 2,
    "baselines": False,
}
MADE_WITH = {"torch": torch.__version__}


def told(event):
    """An event without its clock."""
    match event:
        case loop.Stepped():
            return (*event[:4], event.gathered, event.seen)
        case loop.Reported():
            return (*event[:3], event.metrics, {name: tuple(one) for name, one in event.networks.items()})
        case phases.Finished(result):
            return ({name: tuple(one) for name, one in result.networks.items()}, *result[1:3])
    return None


def assert_same(one, other):
    assert type(one) is type(other)
    one, other = told(one), told(other)
    assert tree.paths(one) == tree.paths(other)
    for a, b in zip(tree.leaves(one), tree.leaves(other), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def through_a_file(at, networks, path):
    stored.write(path, stored.of(at, networks, 1.5, [0], MADE_WITH))
    return stored.parsed(*sealed.read(path), str(path))


def assert_goes_on(run, path, every=1):
    """Stop after each of the steps of `run`, or each so many."""
    events = list(run(None))
    networks, places = {}, [place for place, event in enumerate(events) if isinstance(event, loop.Stepped)]
    for place, event in enumerate(events):
        if isinstance(event, phases.Began):
            networks = event.networks
        if place not in places[every // 2 :: every]:
            continue
        rest = [
            one
            for one in run(through_a_file(event, networks, path))
            if not isinstance(one, phases.Began | phases.Chosen)
        ]
        expected = [one for one in events[place + 1 :] if not isinstance(one, phases.Began | phases.Chosen)]
        assert len(rest) == len(expected)
        for one, other in zip(rest, expected, strict=True):
            assert_same(one, other)
    assert len(places) >= 3


TRAINED = [name for name in METHODS if name not in methods.guides()]
"""The methods that take steps."""


@pytest.mark.parametrize("method", TRAINED)
def test_every_step_of_every_method(method, tmp_path):
    experiment = prepare(TrainConfig(**{**TINY, "method": method}))
    assert_goes_on(lambda since: phases.run(experiment, since=since), tmp_path / "state")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"baselines": True}, marks=pytest.mark.slow),
        {"unroll": 4},
        {"grad": "first-order"},
        {"model": "convnet:width=4,depth=2,norm=batch", "optimizer": "adamw"},
        {"teacher_model": "convnet:width=4,depth=1"},
    ],
    ids=str,
)
def test_baselines_several_steps_of_the_student_and_other_networks(options, tmp_path):
    experiment = prepare(TrainConfig(**{**TINY, **options}))
    assert_goes_on(lambda since: phases.run(experiment, since=since), tmp_path / "state", 3)


@pytest.mark.parametrize("options", [{}, {"model": "convnet:width=4,depth=1,norm=batch", "data": "digits"}], ids=str)
def test_populations(options, tmp_path):
    configs = [TrainConfig(**{**TINY, **options}, seed=seed) for seed in range(3)]
    experiments = population.members(configs)

    def run(since):
        return (event for _, event in population.train_all(experiments, since={None: since}))

    assert_goes_on(run, tmp_path / "state", 3)


def fresh(**options):
    """A phase of Meta Pseudo Labels at its start, and after two steps."""
    experiment = prepare(TrainConfig(**{**TINY, **options}))
    phase = phases.prepare_phase(experiment, methods.plan(experiment.config)[0], {})
    at = loop.start(phase)
    return at, next(itertools.islice(loop.steps(phase, at), 1, None))


@pytest.mark.parametrize(
    "options", [*({"grad": one} for one in ESTIMATORS), *({"optimizer": one} for one in OPTIMIZERS)], ids=str
)
def test_states_are_tensors_that_stay_where_they_are(options, tmp_path):
    """Otherwise no state could be told from another by its places, shapes and types."""
    at, then = fresh(**options)
    assert_same(stored.enter(at, through_a_file(then, {}, tmp_path / "state")), then)


def test_the_layout_in_memory_comes_back(tmp_path):
    """Convolutions round by it, and a size of 1 hides it from `is_contiguous`."""
    weights = [
        torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        torch.randn(4, 3, 1, 1).to(memory_format=torch.channels_last),
        torch.randn(3, 5).T,
        torch.randn(3),
        torch.zeros(()),
        torch.randn(2, 1).expand(2, 3),
    ]
    at = loop.Stepped("toy", 1, 2, {str(place): one for place, one in enumerate(weights)}, ({"loss": torch.ones(())},))
    found = through_a_file(at, {}, tmp_path / "state").state
    for given, (path, value) in zip(weights, found.items(), strict=True):
        assert torch.equal(given, value), path
    assert [value.stride() for value in found.values()] == [*(one.stride() for one in weights[:-1]), (3, 1)]


def test_networks_keep_their_order(tmp_path):
    """The norm of a gradient is a sum in that order."""
    networks = {
        "uda": Variables({"b": torch.ones(2), "a": torch.zeros(1)}, {}),
        "nothing": Variables({}, {}),
        "ema": Variables({"w": torch.ones(3)}, {"z": torch.ones(1), "y": torch.ones((), dtype=torch.int64)}),
    }
    at = loop.Stepped("toy", 1, 2, torch.ones(1), ({"loss": torch.ones(())},))
    found = through_a_file(at, networks, tmp_path / "state").networks
    assert tree.paths(found) == tree.paths(networks)
    assert list(found) == list(networks)
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(found), tree.leaves(networks), strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "mlp:width=7,depth=1"}, "other tensors than this run"),
        ({"model": "mlp:width=6,depth=2"}, "other tensors than this run"),
        ({"optimizer": "adam"}, "other tensors than this run"),
        ({"steps": 1}, "of step 2 of mpl, and it has 1"),
        ({"method": "uda"}, "of the phase mpl, and this run has only uda"),
    ],
    ids=str,
)
def test_a_state_of_another_run_is_refused(options, words, tmp_path):
    _, then = fresh()
    since = through_a_file(then, {}, tmp_path / "state")
    with pytest.raises(InputError, match=words):
        list(phases.run(prepare(TrainConfig(**{**TINY, **options})), since=since))


def test_a_state_with_something_else_than_tensors_is_refused_when_it_is_stored():
    at = loop.Stepped("toy", 1, 2, {"a": torch.ones(1), "b": 3}, ({"loss": torch.ones(())},))
    with pytest.raises(ValueError, match=r"no tensor at \['b'\]"):
        stored.of(at, {}, 0.0, [0], MADE_WITH)


def test_another_format_is_refused_in_one_line(tmp_path, monkeypatch):
    _, then = fresh()
    monkeypatch.setattr(stored, "FORMAT", 2)
    stored.write(tmp_path / "state", stored.of(then, {}, 0.0, [0], MADE_WITH))
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"has the format 2 and not 1: go on with the metapl that wrote it$"):
        stored.parsed(*sealed.read(tmp_path / "state"), "it")
