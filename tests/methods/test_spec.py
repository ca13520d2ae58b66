"""The records of the methods, and what everything else reads from them."""

import subprocess
import sys

import pytest

from metapl import methods
from metapl.core.types import Model, Variables
from metapl.methods.spec import Models, NetworkSpec, PhaseSpec
from metapl.registry.errors import InputError
from metapl.training.config import TrainConfig

PANEL = ["logistic", "self-training", "spreading"]
FITTED = [*PANEL, "consensus"]
TABLE = [*FITTED, "supervised", "pseudo-labels", "uda", "fixed", "teacher", "student", "ema", "finetuned"]


def test_the_order_of_tables_and_of_preference():
    assert list(methods.networks()) == TABLE
    assert methods.preferred() == (
        *("finetuned", "ema", "pseudo-labels", "uda", "supervised"),
        *FITTED[::-1],
    )
    assert methods.best(TABLE) == "finetuned"
    assert methods.best(["supervised", "teacher", "uda"]) == "uda"
    assert methods.best(["teacher", "student", "fixed"]) == ""
    assert methods.best(FITTED) == "consensus"
    assert methods.best(FITTED, "self-training") == "self-training"
    assert methods.preferred("spreading") == (
        "spreading",
        *(name for name in methods.preferred() if name != "spreading"),
    )
    assert methods.preferred("auto") == methods.preferred()


def test_a_network_that_several_phases_leave_is_called_the_same():
    for name in methods.METHODS:
        for phase in methods.find(name).phases:
            for network, spec in phase.networks.items():
                known = methods.networks()[network]
                assert (spec.title, spec.role, spec.row, spec.colour) == (
                    known.title,
                    known.role,
                    known.row,
                    known.colour,
                )
                assert spec.title
                assert spec.role


@pytest.mark.parametrize("name", methods.METHODS)
def test_what_a_record_names_is_there(name):
    method = methods.find(name)
    assert set(method.baselines) < set(methods.METHODS)
    assert set(method.models.values()) <= {"student", "teacher", "calibrator", "classical"}
    known = TrainConfig()
    for phase in method.phases:
        assert type(getattr(known, phase.steps)) is type(getattr(known, phase.labelled_batch)) is int
        assert not phase.continues or any(phase.continues in other.networks for other in method.phases)
    assert all(hasattr(known, field) for field in method.needs)
    assert bool(method.needs) == bool(method.otherwise)
    assert methods.plan(TrainConfig(method=name, guide="none"))[-1] == method.phases[-1]


def test_a_phase_keeps_networks_by_the_names_of_the_files():
    spec = PhaseSpec("x", None, {"mine": NetworkSpec("t", "r", 1, source="ema"), "other": NetworkSpec("t", "r", 2)})
    found = {"ema": Variables({}, {}), "other": Variables({"a": 1}, {}), "model": Variables({"b": 1}, {})}
    assert spec.keep(found) == {"mine": found["ema"], "other": found["other"]}
    assert spec.keep(found)["mine"] is found["ema"]


def test_the_model_of_a_network():
    student, teacher, calibrator, fitted = (
        Model(None, apply) for apply in ("student", "teacher", "corrected", "fitted")
    )
    both = NetworkSpec("t", "r", 1, built_from={"a/": "teacher", "b/": "calibrator"}, compose=lambda a, b: (a, b))
    networks = {
        "ema": NetworkSpec("t", "r", 1),
        "both": both,
        "fixed": NetworkSpec("t", "r", 1, built_from={"": "teacher"}),
        "votes": NetworkSpec("t", "r", 1, built_from={"": "classical"}),
    }
    models = Models(student, teacher, calibrator, networks, fitted)
    assert models.of("votes") is fitted
    assert models.of("ema") is student
    assert models.of("fixed") is teacher
    assert models.of("both") == (teacher, calibrator)
    assert models.of("in between") is student


def test_what_a_method_lacks():
    uda = methods.find("uda")
    assert uda.lacks(TrainConfig(uda_weight=0.0)) == "uda_weight"
    assert uda.lacks(TrainConfig()) == ""
    assert methods.find("mpl").lacks(TrainConfig(uda_weight=0.0)) == ""


def test_an_unknown_method():
    with pytest.raises(InputError, match=r"^unknown method 'mlp': did you mean 'mpl'\?"):
        methods.find("mlp")


def test_the_names_are_known_without_torch():
    code = "import sys, metapl.training.config, metapl.methods; print(*metapl.methods.METHODS, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [*methods.METHODS, "False"]


def test_the_panel_is_in_every_plan_and_the_method_at_its_end():
    assert list(methods.PANEL) == PANEL
    for name in methods.METHODS:
        names = [phase.name for phase in methods.plan(TrainConfig(method=name, guide="none"))]
        assert names[:3] == PANEL if name not in PANEL else {*names} == {*PANEL}
        assert names[-1] == methods.find(name).phases[-1].name
        alone = methods.plan(TrainConfig(method=name, guide="none", baselines=False))
        assert not {*PANEL} & {phase.name for phase in alone} - {name}


def test_a_phase_that_is_fitted_has_no_steps():
    phase = methods.find("logistic").phases[0]
    with pytest.raises(NotImplementedError, match="fitted at once"):
        phase.build(None, {})
