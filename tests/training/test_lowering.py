"""The first steps in bfloat16 beside those in float32: what is compared, and when it is said."""

from functools import partial

import pytest
import torch
from command import invoke

from metapl import methods
from metapl.core import tree
from metapl.training import loop, lowering, phases
from metapl.training.config import TrainConfig, flag
from metapl.training.experiment import prepare

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

TINY = {"method": "mpl", "guide": "none", "steps": 5, "finetune_steps": 0, "baselines": False, "device": "cpu"}
TINY |= {"model": "mlp:width=8,depth=1", "labels": 20, "report_every": 5}


def made(**options):
    experiment = prepare(TrainConfig(**TINY, **options))
    (spec, *_) = methods.plan(experiment.config)
    return experiment, partial(phases.prepare_phase, spec=spec, networks={})


def change(experiment, prepared):
    """Of the students' parameters in three steps, by the loop alone."""
    phase = prepared(experiment)
    start = at = loop.start(phase)
    for event in loop.steps(phase, start, 9):
        at = event if isinstance(event, loop.Stepped) and event.step <= 3 else at
    networks = [phase.method.networks(one.state) for one in (start, at)]
    parts = [[networks[1][name].params, networks[0][name].params] for name in networks[0]]
    return torch.cat([leaf.flatten() for after, before in parts for leaf in tree.leaves(tree.sub(after, before))])


def test_what_is_compared():
    low, prepared = made(precision="bf16")
    full, _ = made()
    ours, theirs = change(low, prepared), change(full, prepared)
    found = lowering.compared(low, prepared)
    assert found.cosine == pytest.approx(float(torch.cosine_similarity(ours, theirs, dim=0)), abs=1e-6)
    assert found.length == pytest.approx(float(ours.norm() / theirs.norm()), rel=1e-5)
    assert 0.99 < found.cosine < 1 - 1e-7
    assert found.near
    assert lowering.compared(full, prepared) is None


def test_a_run_says_it_once_a_phase_and_trains_on_as_without(tmp_path):
    flags = [word for name, value in TINY.items() if name != "baselines" for word in (flag(name), value)]
    done = invoke("train", *flags, "--no-baselines", "--precision", "bf16", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert done.out.count("mpl            bf16: the first steps are those of float32 with a cosine of ") == 1
    events = phases.run(made(precision="bf16")[0])
    assert [type(event).__name__ for event in events][:3] == ["Began", "Lowered", "Stepped"]
    assert "Lowered" not in {type(event).__name__ for event in phases.run(made()[0])}
