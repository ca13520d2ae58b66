"""Steps whose numbers are not finite, on a method so small that every number is known, and in whole runs."""

import math
from typing import NamedTuple

import numpy
import pytest
import torch
from command import invoke

from metapl.core import rng
from metapl.core.types import Variables
from metapl.data.loader import Batch
from metapl.methods.base import Method
from metapl.methods.classical import linear
from metapl.registry.errors import InputError
from metapl.training import loop, nonfinite, phases, population
from metapl.training.config import ON_NONFINITE, TrainConfig
from metapl.training.experiment import prepare

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


class State(NamedTuple):
    total: torch.Tensor
    steps: torch.Tensor


def step(state, batch, key):
    """Adds up what the batches hold."""
    value = batch.x_labelled.sum()
    return State(state.total + value, state.steps + 1), {"value": value}


ADDING = Method(
    lambda key: State(torch.zeros(()), torch.tensor(0)),
    step,
    lambda state: {"model": Variables({"total": state.total}, {})},
    ("x_labelled",),
)


def run(policy, values, every=3, reports=100):
    """The states after each step of a run whose batches hold these values."""

    def batch(step):
        x = torch.tensor([float(values[step])])
        return Batch(x, torch.zeros(1, dtype=torch.int64), torch.zeros(0), torch.tensor([step + 40]), torch.tensor([]))

    method = nonfinite.POLICIES[policy](ADDING, every)
    phase = loop.Phase("toy", method, batch, len(values), rng.key(0))
    return list(loop.steps(phase, loop.start(phase), reports))


def totals(events):
    found = [event.state for event in events if isinstance(event, loop.Stepped)]
    return [float(getattr(state, "state", state).total) for state in found]


def test_every_policy_has_a_name():
    assert tuple(nonfinite.POLICIES) == ON_NONFINITE


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_skipped_leaves_no_trace(bad):
    events = run("skip", [1, 2, bad, 4, bad, 6])
    assert totals(events) == [1, 3, 3, 7, 7, 13]
    assert int(events[-2].state.steps) == 4
    assert events[-1].metrics == {"value": (1 + 2 + 4 + 6) / 4, "skipped": 2 / 6}


def test_rolling_back_forgets_up_to_so_many_steps():
    """Steps 1 2 3 | 4 5 bad: back to the state after 3; then 7 8, bad: 3 again; then 10."""
    bad = math.nan
    assert totals(run("rollback", [1, 1, 1, 1, 1, bad, 1, 1, bad, 1, 1, 1, bad])) == [
        *(1, 2, 3, 4, 5),
        *(3, 4, 5),
        *(3, 4, 5, 6),
        6,
    ]


def test_a_run_all_of_whose_steps_are_skipped_ends():
    with pytest.raises(InputError, match="'value' is no longer finite"):
        run("skip", [math.nan, math.nan])


def test_stopping_names_the_step_the_term_and_the_example():
    said = r"^toy: 'value' is no longer finite, from step 3 on, as is known by step 4: example 42 of the training pool"
    with pytest.raises(InputError, match=said):
        run("stop", [1, 2, math.nan, 4])


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_where_all_is_finite_nothing_changes(policy):
    options = {
        "method": "mpl",
        "model": "mlp:width=5",
        "steps": 3,
        "finetune_steps": 2,
        "baselines": False,
        "labels": 20,
        "device": "cpu",
    }
    one, other = (
        phases.finish(phases.run(prepare(TrainConfig(**options, on_nonfinite=name)))).networks
        for name in ("stop", policy)
    )
    for name, network in one.items():
        for key, value in network.params.items():
            assert torch.equal(value, other[name].params[key])


def broken(experiment):
    """With an example that is no number, among those without labels."""
    x = experiment.data.x.clone()
    x[experiment.split.unlabelled[5]] = math.nan
    return experiment._replace(data=experiment.data._replace(x=x))


RUN = {
    "method": "mpl",
    "guide": "none",
    "model": "mlp:width=5",
    "steps": 30,
    "finetune_steps": 2,
    "labels": 20,
    "device": "cpu",
    "batch": 50,
}


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_whole_runs_and_populations_survive_an_example_that_is_no_number(policy):
    config = TrainConfig(**RUN, on_nonfinite=policy, baselines=False, report_every=5, labelled_in_unlabelled=False)
    experiments = [broken(one) for one in population.members([config, TrainConfig(**{**vars(config), "seed": 1})])]
    alone = list(phases.run(experiments[0]))
    together = [event for _, event in population.run(experiments)]
    for events in (alone, together):
        shares = [
            event.metrics["skipped"] for event in events if isinstance(event, loop.Reported) and event.phase == "mpl"
        ]
        assert 0 < sum(shares) < len(shares)
        for event in events:
            if isinstance(event, phases.Finished):
                assert all(
                    bool(torch.isfinite(one).all())
                    for network in event.result.networks.values()
                    for one in network.params.values()
                )


def test_an_example_that_is_no_number_is_named():
    experiment = broken(prepare(TrainConfig(**RUN, baselines=False, labelled_in_unlabelled=False)))
    with pytest.raises(
        InputError, match=f"example {int(experiment.split.unlabelled[5])} of the training pool has no finite"
    ):
        phases.finish(phases.run(experiment))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_panel_is_not_given_it(bad, monkeypatch):
    """Of a source that does not look by itself; scikit-learn would end in a traceback, and name no example."""
    monkeypatch.setattr(linear, "regression", None)  # which could not be called
    experiment = prepare(TrainConfig(**RUN, labelled_in_unlabelled=False))
    x = experiment.data.x.clone()
    places = sorted(int(one) for one in experiment.split.unlabelled[[5, 9]])
    x[places] = bad
    said = rf"^2 examples of the training pool have no finite values \({places[0]}, {places[1]}, from 0 on\): mend or"
    with pytest.raises(InputError, match=said):
        phases.finish(phases.run(experiment._replace(data=experiment.data._replace(x=x))))


@pytest.mark.parametrize("name", ["x", "x_test", "x_unlabelled"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_arrays_with_it_are_refused_before_anything_is_trained(name, bad, tmp_path):
    """Of features, as of any numbers: one line that names the examples."""
    x = torch.randn(40, 6).numpy()
    arrays = {"x": x, "y": torch.arange(40).numpy() % 3, "x_test": x, "y_test": torch.arange(40).numpy() % 3}
    arrays["x_unlabelled"] = x
    arrays[name] = x.copy()
    arrays[name][[4, 17], 2] = bad
    numpy.savez(tmp_path / "features.npz", **arrays, encoder=numpy.array("mine"))
    outcome = invoke("train", "--data", tmp_path / "features.npz", "--labels", 9, "--out", tmp_path / "run")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert f"features.npz: {name}: holds NaN or infinity, in 2 of 40 examples (4, 17, from 0 on): " in outcome.err
    assert not (tmp_path / "run").exists()


def test_another_policy_is_refused():
    outcome = invoke("train", "--on-nonfinite", "skp")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "unknown on_nonfinite 'skp': did you mean 'skip'?" in outcome.err
