"""Runs that several processes train together, against the same run by one process; in float64, over gloo."""

from dataclasses import replace

import pytest
import torch
from asserts import assert_close_tree, assert_says
from together import together
from torch import nn

from metapl import methods
from metapl.core import torch_private, tree
from metapl.core.collectives import ALONE, Processes
from metapl.core.types import Variables
from metapl.estimators import ESTIMATORS
from metapl.nn import functional, shared_out
from metapl.training import experiment, loop, own_rows, phases, watching
from metapl.training.architectures import architectures
from metapl.training.config import TrainConfig

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

COMMON = {
    "labels": 20,
    "validation": 30,
    "method": "mpl",
    "baselines": False,
    "batch": 24,
    "labelled_batch": 12,
    "device": "cpu",
    "guide": "none",
    "alignment": "marginal",
    "clip": 0.5,
    "augment": "crop",  # of which each process makes its own rows
}
MLP = {"model": "mlp:width=8"}
GROUP = {"model": "convnet:width=2,depth=1,norm=group"}
BATCH = {"model": "convnet:width=2,depth=1,norm=batch"}
QUICK = {
    "exact": {**MLP, "model": "mlp:width=8,dropout=0.2", "grad": "exact"},
    "first-order": {**MLP, "grad": "first-order", "threshold": "adaptive"},
    "K = 4": {**MLP, "grad": "exact", "unroll": 4},
    "synchronised": {**BATCH, "grad": "exact:route=forward"},
    "supervised": {**MLP, "method": "supervised"},
}
SLOW = {
    f"{norm}, {name}": {**network, **grad}
    for norm, network in {
        "GroupNorm": GROUP,
        "GroupNorm in microbatches": {**GROUP, "microbatch": 5},
        "synchronised": BATCH,
        "groups": {**BATCH, "batch_norm_batch": 6},
        "own statistics": {**BATCH, "batch_norm_groups": 4},
        "groups in microbatches": {**BATCH, "batch_norm_batch": 6, "microbatch": 6},
    }.items()
    for name, grad in {
        "exact": {"grad": "exact"},
        "first-order": {"grad": "first-order"},
        "K = 4": {"grad": "exact", "unroll": 4},
    }.items()
}
SLOW |= {
    "forward": {**BATCH, "grad": "exact:route=forward"},
    "reverse": {**BATCH, "grad": "exact:route=reverse"},
    "displaced": {**GROUP, "grad": "exact:route=difference"},
    "mixed": {**BATCH, "grad": "exact:method=mixed", "unroll": 4},
    "recorded": {**BATCH, "grad": "exact:method=reverse", "unroll": 4},
    "part": {**GROUP, "grad": "exact:fraction=0.5"},
    "batches that do not divide": {**BATCH, "grad": "exact", "batch": 23, "labelled_batch": 11},
    "alignments": {**MLP, "grad": "exact", "alignment": "fair", "threshold": "flexible"},
    "mixing and half an exam": {**MLP, "grad": "exact", "mixing": "mixup", "exam": "apart", "alignment": "adamatch"},
    "pseudo-labels": {**BATCH, "method": "pseudo-labels"},
    "uda": {**BATCH, "method": "uda", "threshold": "gaussian"},
    "AdamW": {**GROUP, "grad": "exact", "optimizer": "adamw", "lr": 0.01, "teacher_lr": 0.01},
}
SLOW |= {grad: {**MLP, "grad": grad} for grad in ESTIMATORS if grad not in ("exact", "first-order")}


MAGNIFIED = {"evolution": 1e-8, "difference": 1e-8, "displaced": 1e-6}
"""Estimators that divide a difference of losses or gradients by a small number, and the rounding with it."""


def config_of(options, steps):
    return TrainConfig(**{**COMMON, **options, "steps": steps})


@pytest.fixture(scope="module")
def prepared():
    torch_private.load_forward_formulas()  # once, and not in each process
    return experiment.prepare(config_of(MLP, 1))


def in_double(prepared, config, processes):
    """The experiment of a configuration on data that is there, in float64."""
    one = experiment.assemble(config, prepared.data, prepared.split, processes)
    models = {field: functional.cast(getattr(one.models, field), torch.float64) for field in ("student", "teacher")}
    prepare = prepared.data.augment.prepare
    augment = prepared.data.augment._replace(prepare=lambda x: prepare(x).double())
    return one._replace(models=one.models._replace(**models), data=one.data._replace(augment=augment))


def after(prepared, options, steps, processes):
    """The state after the steps of the last phase, with a trained network for those before it."""
    config = config_of(options, steps)
    one = in_double(prepared, config, processes)
    spec = next(spec for spec in methods.plan(config) if spec.name == config.method)
    networks = {}
    if config.method == "pseudo-labels":
        networks["supervised"] = Variables(*one.models.student.init(one.keys.root))
    phase = phases.prepare_phase(one, spec, networks)
    *_, last = (event for event in loop.steps(phase, loop.start(phase)) if isinstance(event, loop.Stepped))
    return dict(zip(tree.paths(last.state), tree.leaves(last.state), strict=True))


def test_own_rows_are_what_is_trained_on(prepared):
    """In these tests, but for those of rules that need the whole batch."""
    alike = Processes(1, 2, lambda flat: 2 * flat)
    whole = {"part", "batches that do not divide", "mixing and half an exam", "pseudo-labels"}
    for name, options in {**QUICK, **SLOW}.items():
        config = config_of(options, 2)
        views = own_rows.views(in_double(prepared, config, alike), config.method)
        assert (views is None) == (name in whole or "batch_norm_batch" in options), name


def require_the_same(found, expected, rtol):
    for one in found:
        assert_close_tree(one, expected, rtol=rtol, atol=1e-13)
        assert all(torch.equal(value, found[0][name]) for name, value in one.items())


@pytest.fixture(scope="module")
def quick(prepared):
    def train(processes):
        return {name: after(prepared, options, 2, processes) for name, options in QUICK.items()}

    return together(2, train)


@pytest.mark.parametrize("name", list(QUICK))
def test_two_processes_train_as_one(prepared, quick, name):
    require_the_same([one[name] for one in quick], after(prepared, QUICK[name], 2, ALONE), rtol=1e-11)


def cases():
    """Every configuration with two and with four processes; most of it is `long`."""
    slow = {("GroupNorm, exact", 4), ("synchronised, exact", 4), ("GroupNorm, K = 4", 2), ("synchronised, K = 4", 2)}
    long = {"forward", "reverse", "mixed", "recorded", "evolution", "implicit"}
    long |= {name for name in SLOW if name.endswith(("K = 4", "first-order"))}
    for name in SLOW:
        for count in (2, 4):
            checked = (name, count) in slow or (count == 2 and name not in long)
            yield pytest.param(name, count, marks=pytest.mark.slow if checked else pytest.mark.long)


@pytest.mark.parametrize(("name", "count"), list(cases()))
def test_processes_train_as_one(prepared, name, count):
    expected = after(prepared, SLOW[name], 20, ALONE)
    found = together(count, lambda processes: after(prepared, SLOW[name], 20, processes))
    require_the_same(found, expected, rtol=MAGNIFIED.get(name, 1e-10))


def test_reports_and_results_are_those_of_one(prepared):
    """Evaluation is shared out: every process has all of it."""
    config = replace(config_of(MLP, 2), report_every=1, finetune_steps=1)

    def whole(processes):
        one, lines, result = in_double(prepared, config, processes), [], None
        for event in phases.run(one):
            if isinstance(event, loop.Reported):
                line = watching.look(one, event)
                lines.append((line.pop("step"), {line.pop("phase"): line}))
            elif isinstance(event, phases.Finished):
                result = event.result
        found = (lines, result.test, result.validation, result.confusion)
        return tree.map(lambda value: torch.as_tensor(value, dtype=torch.float64).nan_to_num(-1.0), found)

    expected = whole(ALONE)
    for found in together(2, whole):
        assert_close_tree(found, expected, rtol=1e-10, atol=1e-12)


def test_each_process_evaluates_its_part(prepared):
    summed = []

    def reduce(flat):
        summed.append(len(flat))
        return flat

    one = prepared._replace(processes=Processes(0, 2, reduce))
    network = Variables(*one.models.student.init(one.keys.root))
    phases.predict(one, "student", network, "validation")
    assert sum(summed) == len(one.split.validation) * 10
    summed.clear()
    watching.pseudo_label_quality(one, network)
    assert sum(summed) == watching.WATCHED * 10


class Coupled(nn.Module):
    """Lets examples see each other in a way of its own."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = x.flatten(1)
        return self.linear(x - x.mean(0))


class Noisy(Coupled):
    """Draws noise that is not dropout."""

    def forward(self, x):
        return self.linear(x.flatten(1) + torch.randn(len(x), 64))


@pytest.mark.parametrize("module", [Coupled, Noisy])
def test_a_network_that_cannot_be_shared_out_is_refused(prepared, module, monkeypatch):
    monkeypatch.setattr("metapl.training.architectures.zoo.build", lambda *_: module())
    config = config_of(MLP, 2)

    def refused(processes):
        one = experiment.assemble(config, prepared.data, prepared.split, processes)
        assert_says(lambda: next(phases.run(one)), "model = mlp:width=8", "one process")

    together(2, refused)


def test_processes_that_went_apart_are_stopped(prepared):
    config = replace(config_of(MLP, 2), report_every=1)

    def apart(processes):
        one = experiment.assemble(config, prepared.data, prepared.split, processes)
        moved = replace(config, lr=config.lr * (1.0 + processes.rank))
        assert_says(lambda: list(phases.run(one._replace(config=moved))), "process 1 of 2", "step 1 of mpl")

    together(2, apart)


def test_one_process_is_left_as_it_is(prepared):
    form = prepared.data.form
    assert architectures(prepared.config, form).student.apply.__module__ != shared_out.__name__
