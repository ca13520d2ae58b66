"""A preset of a million steps, stopped three times in its first 300, stands where one that was never stopped stands."""

import json
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from command import invoke
from going_on import interrupt
from published import write_cifar10

from metapl.core import tree
from metapl.training import keeper, state_files

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

NARROW = ("--model", "wrn:depth=10,width=1,dropout=0.35", "--teacher-model", "wrn:depth=10,width=1,dropout=0.5")
SMALL = ("--labels", 40, "--validation", 20, "--batch", 7, "--labelled-batch", 1, "--report-every", 50)
STEPS = 300


def lines(run):
    """The log without times and rates."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("phase", "step", "metrics", "validation", "pseudo_labels")} for line in found]


def standing(run):
    """All that the rest of a run is a function of."""
    found = state_files.newest(run)
    return found.phase, found.step, found.seen, tree.paths(found[2:4]), tree.leaves(found[2:4])


@pytest.mark.slow
def test_three_hundred_steps_of_a_million(stop, tmp_path):
    write_cifar10(tmp_path / "data", count=60)
    preset = ("train", "--preset", "cifar10-4k", "--data", tmp_path / "data", "--device", "cpu", *NARROW, *SMALL)
    stop("mpl", STEPS, interrupt)
    assert invoke(*preset, "--out", tmp_path / "whole").code == 130

    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as clock:
        late = SimpleNamespace(perf_counter=lambda: time.perf_counter() + 7200, monotonic=time.monotonic)
        stop("mpl", 30, lambda: clock.setattr(keeper, "time", late))
        outcome = invoke(*preset, "--time-limit", "1h", "--out", run)
    assert outcome.code == 75
    assert "step 31 of 1000000 of mpl is stored" in outcome.err
    first = state_files.newest(run).step
    for step, number in ((first + 50, signal.SIGTERM), (first + 51, signal.SIGUSR1)):
        stop("mpl", step, lambda number=number: os.kill(os.getpid(), number))
        assert invoke("train", "--resume", run).code == 128 + number
        assert state_files.newest(run).step == step
    stop("mpl", STEPS, interrupt)
    assert invoke("train", "--resume", run).code == 130

    assert len(lines(run)) == STEPS // 50 - 1  # the line of the last step is the first of the next part
    assert lines(run) == lines(tmp_path / "whole")
    *places, leaves = standing(run)
    *expected, others = standing(tmp_path / "whole")
    assert places == expected
    assert len(leaves) > 100
    assert all(torch.equal(one, other) for one, other in zip(leaves, others, strict=True))
