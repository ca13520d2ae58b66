"""The training loop, on a method so small that every number is known; and whole runs, on a network so small."""

import math
from typing import NamedTuple

import pytest
import torch

from metapl import methods
from metapl.core import rng
from metapl.core.types import Variables
from metapl.data.loader import Batch
from metapl.methods.base import Method
from metapl.registry.errors import InputError
from metapl.training import loop, phases
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare
from metapl.training.loop import Reported, Stepped

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


class State(NamedTuple):
    first: torch.Tensor
    drawn: torch.Tensor
    steps: torch.Tensor


def toy(broken_at=None):
    """A method that logs its step count and the mean of its batch, and adds up what its keys give."""

    def init(key):
        return State(rng.uniform(key, ()), torch.zeros(()), torch.tensor(0))

    def step(state, batch, key):
        value = math.nan if int(state.steps) == broken_at else float(state.steps)
        metrics = {"count": torch.tensor(value), "batch": batch.x_labelled.mean()}
        return State(state.first, state.drawn + rng.uniform(key, ()), state.steps + 1), metrics

    return Method(init, step, lambda state: {"model": Variables({"drawn": state.drawn}, {"steps": state.steps})})


def batch_at(step):
    return Batch(torch.full((2,), 10.0 * step), torch.zeros(2, dtype=torch.int64), torch.zeros(3))


def phase(steps=7, key=0, method=None):
    return loop.Phase("toy", method or toy(), batch_at, steps, rng.key(key))


def fit(every=3, **options):
    begun = phase(**options)
    events = list(loop.steps(begun, loop.start(begun), every))
    reports = [event for event in events if isinstance(event, Reported)]
    stepped = [event for event in events if isinstance(event, Stepped)]
    assert events[-1] is reports[-1]
    assert [event[:3] for event in stepped] == [("toy", step + 1, begun.steps) for step in range(begun.steps)]
    return stepped[-1].state, reports


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [(7, 3, [3, 6, 7]), (6, 3, [3, 6]), (2, 5, [2]), (3, 1, [1, 2, 3]), (5, 5, [5])],
)
def test_reports_come_every_so_many_steps_and_at_the_end(steps, every, expected):
    _, reports = fit(every, steps=steps)
    assert [report.step for report in reports] == expected
    assert {(report.phase, report.steps) for report in reports} == {("toy", steps)}


def test_metrics_are_means_since_the_last_report():
    """Counts 0 1 2 | 3 4 5 | 6, batches ten times that."""
    _, reports = fit(every=3)
    assert [report.metrics for report in reports] == [
        {"count": 1.0, "batch": 10.0},
        {"count": 4.0, "batch": 40.0},
        {"count": 6.0, "batch": 60.0},
    ]


def test_reports_carry_the_networks_of_their_step_and_a_rate():
    state, reports = fit(every=3)
    assert [int(report.networks["model"].buffers["steps"]) for report in reports] == [3, 6, 7]
    assert torch.equal(reports[-1].networks["model"].params["drawn"], state.drawn)
    assert all(math.isfinite(report.images_per_second) and report.images_per_second > 0 for report in reports)


@pytest.mark.parametrize("method", ["mpl", "reduced"])
def test_a_phase_has_no_examples_that_its_method_does_not_see(method):
    sizes = {"labelled_batch": 8, "batch": 16, "unroll": 2, "finetune_batch": 4}
    experiment = prepare(TrainConfig(labels=40, model="mlp:width=4,depth=1", method=method, **sizes))
    network = Variables(*experiment.models.student.init(rng.key(0)))
    given = dict.fromkeys(("supervised", "fixed", "ema"), network)
    found = {}
    for part in [one for one in methods.plan(experiment.config) if not one.fit]:
        batch = phases.prepare_phase(experiment, part, given).batches(0)
        assert len(batch.y_labelled) == len(batch.labelled) == len(batch.x_labelled)
        assert len(batch.unlabelled) == len(batch.x_unlabelled)
        found[part.name] = len(batch.labelled), len(batch.unlabelled)
    alone = {"supervised": (8, 0), "pseudo-labels": (0, 16), "uda": (8, 16)}
    taught = {"mpl": {"mpl": (8, 32)}, "reduced": {"fixed": (8, 16), "reduced": (8, 32)}}
    assert found == {**alone, **taught[method], "finetune": (4, 0)}


def test_the_rate_counts_what_each_method_sees(monkeypatch):
    """A clock that goes on by a second whenever it is looked at."""
    seconds = iter(range(1000))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(seconds)))
    sizes = {"labelled_batch": 8, "batch": 16, "unroll": 2, "finetune_batch": 4}
    steps = {"steps": 6, "report_every": 3, "finetune_steps": 3, "guide": "none"}
    rates = {}
    for method in ("mpl", "reduced"):
        experiment = prepare(TrainConfig(labels=40, model="mlp:width=4,depth=1", method=method, **sizes, **steps))
        for event in phases.run(experiment):
            if isinstance(event, Reported):
                rates.setdefault(event.phase, set()).add(event.images_per_second / 3)
    alone = {"supervised": {8}, "pseudo-labels": {16}, "uda": {8 + 16}, "fixed": {8 + 16}}
    assert rates == {**alone, "mpl": {8 + 2 * 16}, "reduced": {8 + 2 * 16}, "finetune": {4}}


def test_the_key_determines_the_run_however_often_it_reports():
    runs = [fit(every)[0] for every in (1, 2, 3, 7, 50)]
    assert len({(float(run.first), float(run.drawn), int(run.steps)) for run in runs}) == 1


def test_another_key_gives_another_start_and_other_draws():
    one, other = fit()[0], fit(key=1)[0]
    assert one.first != other.first
    assert one.drawn != other.drawn


def test_every_step_has_a_key_of_its_own():
    """And a longer run begins as a shorter one does."""
    drawn = [float(fit(steps=steps)[0].drawn) for steps in range(1, 9)]
    single = [after - before for before, after in zip([0.0, *drawn], drawn, strict=False)]
    assert len({round(value, 4) for value in single}) == 8


@pytest.mark.parametrize(("broken_at", "reported"), [(0, 3), (4, 6), (6, 7)])
def test_a_loss_that_is_not_finite_stops_the_run(broken_at, reported):
    reports, begun = [], phase(method=toy(broken_at))
    with pytest.raises(InputError, match=rf"^toy: 'count' .* by step {reported}: lower lr or feedback_weight"):
        reports.extend(event for event in loop.steps(begun, loop.start(begun), 3) if isinstance(event, Reported))
    assert [report.step for report in reports] == [step for step in (3, 6, 7) if step < reported]
