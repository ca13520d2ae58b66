"""The training loop, on a method so small that every number is known; and whole runs, on a network so small."""

import math
from typing import NamedTuple

import pytest
import torch
from asserts import assert_close_tree
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import methods
from metapl.core import rng
from metapl.core.types import Variables
from metapl.data.augment.base import Augment
from metapl.data.loader import Batch
from metapl.methods.base import Method
from metapl.models import convnet, mlp
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
    steps = {"steps": 6, "report_every": 3, "finetune_steps": 3}
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


# ---------------------------------------------------------------- whole runs

TINY = {
    "method": "mpl",
    "guide": "none",
    "alignment": "none",
    "model": "mlp:width=6,depth=1",
    "teacher_model": "convnet:width=4,depth=1",
    "device": "cpu",
    "steps": 4,
    "finetune_steps": 2,
    "batch": 24,
    "labels": 20,
    "validation": 30,
}


def whole_run(experiment):
    return phases.finish(phases.run(experiment))


def prepared(**options):
    return prepare(TrainConfig(**{**TINY, **options}))


def with_data(experiment, **parts):
    return experiment._replace(data=experiment.data._replace(**parts))


@pytest.fixture(scope="module")
def finished():
    experiment = prepared()
    return experiment, whole_run(experiment)


def assert_same_networks(one, other):
    assert list(one) == list(other)
    for name in one:
        assert_close_tree(tuple(one[name]), tuple(other[name]), rtol=0)


def test_a_run_trains_every_network(finished):
    _, result = finished
    expected = [*methods.PANEL, "supervised", "pseudo-labels", "uda", "teacher", "student", "ema", "finetuned"]
    assert list(result.networks) == list(result.test) == list(result.validation) == expected


def test_a_run_returns_the_last_networks_of_its_phases():
    """Of a baseline the averaged weights, as of the student; of finetuning the weights themselves."""
    *events, finished = phases.run(prepared())
    last = {event.phase: event.networks for event in events if isinstance(event, Reported)}
    result = finished.result
    expected = {name: last[name]["ema"] for name in ("supervised", "pseudo-labels", "uda")}
    expected |= {**last["mpl"], "finetuned": last["finetune"]["model"]}
    assert_same_networks({name: result.networks[name] for name in expected}, expected)
    assert set(result.networks) == {*methods.PANEL, *expected}


def test_no_network_ever_sees_the_validation_part_or_the_test_set(finished):
    experiment, result = finished
    x, y = experiment.data.x.clone(), experiment.data.y.clone()
    x[experiment.split.validation], y[experiment.split.validation] = 100.0, 0
    held_out = {"x_test": -experiment.data.x_test, "y_test": 9 - experiment.data.y_test}
    other = whole_run(with_data(experiment, x=x, y=y, **held_out))
    # The settings of the panel are chosen on the validation part, as its line says; no network is fitted to it.
    trained = result.networks.keys() - set(methods.PANEL)
    assert_same_networks(*({name: one.networks[name] for name in trained} for one in (other, result)))
    assert other.validation != result.validation
    assert other.test != result.test


def test_no_network_ever_sees_a_label_that_was_not_given(finished):
    experiment, result = finished
    y = torch.zeros_like(experiment.data.y)
    y[experiment.split.labelled] = experiment.data.y[experiment.split.labelled]
    y[experiment.split.validation] = experiment.data.y[experiment.split.validation]
    other = whole_run(with_data(experiment, y=y))
    assert_same_networks(other.networks, result.networks)
    assert other.validation == result.validation


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("teacher", lambda: convnet((1, 8, 8), 10, width=4, depth=1)),
        ("ema", lambda: mlp((1, 8, 8), 10, width=6, depth=1)),
    ],
)
def test_every_part_is_judged_by_its_own_examples(finished, part, name, build):
    experiment, result = finished
    data, held_out = experiment.data, experiment.split.validation
    x, y = (data.x_test, data.y_test) if part == "test" else (data.x[held_out], data.y[held_out])
    module = build().eval()
    module.load_state_dict({**result.networks[name].params, **result.networks[name].buffers})
    with torch.no_grad():
        logits = module(x)
    row = getattr(result, part)[name]
    assert row["top1"] == pytest.approx(float((logits.argmax(-1) == y).float().mean()), abs=1e-6)
    assert row["nll"] == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-5)


def test_finetuning_starts_from_the_averaged_student_and_learns_the_labelled_examples():
    """Steps of no length stay there; long ones end where their loss is small."""
    still = whole_run(prepared(baselines=False, finetune_lr=1e-12)).networks
    assert_close_tree(still["finetuned"].params, still["ema"].params, rtol=1e-6)
    with pytest.raises(AssertionError, match="exceeds"):
        assert_close_tree(still["student"].params, still["ema"].params, rtol=1e-6)
    experiment = prepared(baselines=False, finetune_lr=0.05, finetune_steps=200)
    x, y = experiment.data.x[experiment.split.labelled], experiment.data.y[experiment.split.labelled]
    networks = whole_run(experiment).networks
    losses = {
        name: float(F.cross_entropy(experiment.models.student.apply(*networks[name], x, train=False)[0], y))
        for name in ("ema", "finetuned")
    }
    assert losses["finetuned"] < 0.5 < losses["ema"]


@pytest.mark.parametrize(
    ("text", "by_torch"),
    [
        ("sgd:momentum=0.9", lambda params: torch.optim.SGD(params, 0.02, momentum=0.9)),
        ("adam", lambda params: torch.optim.Adam(params, 0.02)),
    ],
)
def test_finetuning_is_by_its_own_optimiser(text, by_torch):
    """On the whole labelled set, without views, three steps by hand; the clipping of the other phases is not in it."""
    assert TrainConfig().finetune_optimizer == "sgd:momentum=0.9"
    experiment = prepared(
        baselines=False, finetune_optimizer=text, finetune_lr=0.02, finetune_steps=3, clip=1e-3, labelled_batch=64
    )
    still = Augment(lambda x, key: x, lambda x, key: x, prepare=experiment.data.augment.prepare)
    experiment = with_data(experiment, augment=still)
    networks = whole_run(experiment).networks
    module = mlp((1, 8, 8), 10, width=6, depth=1)
    module.load_state_dict(networks["ema"].params)
    optimizer = by_torch(list(module.parameters()))
    x, y = experiment.data.x[experiment.split.labelled], experiment.data.y[experiment.split.labelled]
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(module(still.prepare(x)), y).backward()
        optimizer.step()
    assert_close_tree(networks["finetuned"].params, dict(module.named_parameters()), rtol=1e-4, atol=1e-6)


def test_an_optimiser_of_finetuning_that_does_not_exist_is_known_before_training():
    with pytest.raises(InputError, match="unknown optimizer 'sdg'"):
        prepared(finetune_optimizer="sdg")


def test_without_feedback_the_teacher_learns_as_if_it_were_alone(finished):
    """With `none` it depends neither on the student's network nor on how the student learns."""
    options = {"baselines": False, "grad": "none", "finetune_steps": 0}
    one = whole_run(prepared(**options)).networks["teacher"]
    other = whole_run(prepared(**options, lr=0.7, model="mlp:width=3")).networks["teacher"]
    assert_close_tree(tuple(one), tuple(other), rtol=0)
    assert not torch.equal(one.params["0.weight"], finished[1].networks["teacher"].params["0.weight"])


def test_pseudo_labels_learn_from_the_averaged_supervised_network():
    """They never see a label, so what they know they have from the network that they name."""
    result = whole_run(prepared(method="pseudo-labels", teacher_model="", steps=300, ema=0.9))
    assert list(result.networks) == [*methods.PANEL, "supervised", "pseudo-labels"]
    assert result.test["supervised"]["top1"] > 0.4
    assert result.test["pseudo-labels"]["top1"] > 0.4
