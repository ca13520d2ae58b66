"""Whole steps: their operations in closed form and as stored, peers, and what is left out."""

import json

import pytest
import step_costs
import torch

from metapl import models
from metapl.core import rng
from metapl.evaluation import cost
from metapl.methods.base import Recipe
from metapl.registry.errors import InputError
from metapl.studies import bench, peers

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

LINEAR = bench.Scene("linear", (1, 8, 8), 3, 2)


def test_operations_in_closed_form():
    """A linear layer takes one product forward and one back: its inputs have no gradient."""
    calls, left_out = bench.steps(LINEAR, bench.choose(["none", "exact"]))
    assert set(calls) <= {"first-order", "none", "exact", *peers.PEERS}
    assert set(left_out) <= {"TorchOpt"}
    one = 2 * 64 * bench.CLASSES  # of an example
    labelled, unlabelled = 3, 6
    teacher = 2 * (labelled + 2 * unlabelled)
    student, exam = 2 * unlabelled, 2 * labelled
    assert cost.flops(calls["first-order"]) == (teacher + student + exam) * one
    assert cost.flops(calls["exact"]) == (teacher + student + exam + unlabelled) * one
    assert cost.flops(calls["port, by hand"]) == (teacher + 2 * (unlabelled + labelled) + labelled) * one


@pytest.mark.parametrize(
    "model", [pytest.param(model, marks=[] if model == "mlp" else pytest.mark.slow) for model in step_costs.SCENES]
)
def test_operations_and_memory_are_as_stored(model):
    stored = json.loads(step_costs.STORED.read_text())
    if stored["made_with"] != step_costs.made_with():
        pytest.skip(f"stored with {stored['made_with']}")
    found, expected = step_costs.costs(model), stored["costs"][model]
    assert {name: flops for name, (flops, _) in found.items()} == {name: flops for name, (flops, _) in expected.items()}
    for name, (_, memory) in found.items():
        assert memory == pytest.approx(expected[name][1], rel=0.02), name


def test_what_is_measured():
    calls = {
        "first": lambda: torch.ones(8, 20) @ torch.ones(20, 30),
        "twice": lambda: torch.ones(8, 20) @ torch.ones(20, 60),
    }
    told = []
    first, twice = bench.measure(LINEAR, calls, 3, processor=True, tell=told.append)
    assert (first.name, first.flops, first.flops_ratio) == ("first", 2 * 8 * 20 * 30, 1.0)
    assert (first.time_low, first.time_ratio, first.time_high) == (1.0, 1.0, 1.0)
    assert (twice.flops_ratio, twice.peak_memory_bytes) == (2.0, 4 * (160 + 1200 + 480))
    assert twice.time_low <= twice.time_ratio <= twice.time_high
    assert twice.examples_per_second == pytest.approx(9 / twice.seconds)
    assert told == ["time", "first", "twice"]


def test_what_does_not_fit_is_left_out_and_said(monkeypatch):
    def missing(*_given):
        raise ImportError

    monkeypatch.setitem(peers.PEERS, "missing", missing)
    calls, left_out = bench.steps(LINEAR, bench.choose(["none"]))
    assert left_out["missing"] == "is not installed"
    assert "missing" not in calls
    with pytest.raises(InputError, match="wrn needs images"):
        bench.steps(LINEAR._replace(model="wrn", shape=(3,)), bench.choose(["none"]))
    with pytest.raises(InputError, match="unknown estimator 'exakt'"):
        bench.choose(["exakt"])


def test_the_port_learns_with_the_sign_of_the_port():
    """Two steps of a linear student, the second of them written out."""
    batch, recipe = bench._batch(LINEAR), Recipe()
    step = peers.port(lambda: models.build("linear", (1, 8, 8), bench.CLASSES), batch, recipe)
    pair = step.__closure__
    held = {type(cell.cell_contents).__name__: cell.cell_contents for cell in pair}["_Pair"]
    teacher = {name: value.clone() for name, value in held.teacher.state_dict().items()}
    with torch.no_grad():
        before = torch.nn.functional.cross_entropy(held.student(batch.x_labelled), batch.y_labelled)
    strong = held.teacher(batch.x_unlabelled)
    chosen = strong.argmax(-1)
    step()
    with torch.no_grad():
        after = torch.nn.functional.cross_entropy(held.student(batch.x_labelled), batch.y_labelled)
    with rng.seeded(rng.key(0)):
        fresh = models.build("linear", (1, 8, 8), bench.CLASSES)
    fresh.load_state_dict(teacher)
    logits = fresh(torch.cat([batch.x_labelled, batch.x_unlabelled]))
    labelled, unlabelled = logits.split([3, 6])
    target = torch.softmax(unlabelled.detach() / recipe.uda_temperature, -1)
    sure = target.amax(-1) >= recipe.uda_threshold
    consistency = (-(target * unlabelled.log_softmax(-1)).sum(-1) * sure).mean()
    told = (after - before) * torch.nn.functional.cross_entropy(unlabelled, chosen)
    loss = torch.nn.functional.cross_entropy(labelled, batch.y_labelled) + consistency + told
    rule = torch.optim.SGD(fresh.parameters(), **peers.RULE)
    loss.backward()
    rule.step()
    for name, value in held.teacher.state_dict().items():
        torch.testing.assert_close(value, fresh.state_dict()[name])
