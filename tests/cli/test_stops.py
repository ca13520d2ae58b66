"""Signals at moments in which no step is taken, or in which Python does not hear of them."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command import invoke
from going_on import ALONE, MLP, contents, interrupt, resumed

from metapl.methods.classical import linear, spreading
from metapl.training import choosing, keeper, loop, run_folder, session

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

AUTO = (
    *("--data", "moons:points=200", "--labels", 20, "--validation", 0, "--device", "cpu"),
    *("--steps", 30, "--batch", 12, "--report-every", 10, "--model", "mlp:width=6"),
)
"""The method is chosen, and is not the first one of the panel."""


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def before(monkeypatch):
    """`before(module, name, act)`: have something happen when a function is called, once, the first time or later."""

    def at(module, name, act, call=1):
        function, calls = getattr(module, name), itertools.count(1)

        def acting(*args, **options):
            if next(calls) == call:
                act()
            return function(*args, **options)

        monkeypatch.setattr(module, name, acting)

    return at


def test_while_the_panel_is_fitted(whole, before, tmp_path):
    before(spreading, "spread", terminate)
    outcome = invoke("train", *MLP, "--out", tmp_path / "run")
    assert outcome.code == 143
    assert outcome.err == f"metapl: stopped by SIGTERM: `metapl train --resume {tmp_path / 'run'}` begins it again\n"
    assert resumed(tmp_path / "run") == whole(*MLP)


def test_while_the_panel_of_a_run_that_goes_on_is_fitted_again(whole, before, stop, tmp_path):
    """What an earlier process stored is there, and the line says so."""
    stop("mpl", 3, interrupt)
    assert invoke("train", *MLP, "--out", tmp_path / "run").code == 130
    before(linear, "fit", terminate)
    outcome = invoke("train", "--resume", tmp_path / "run")
    assert outcome.code == 143
    said = f"step 3 of 4 of mpl is stored, `metapl train --resume {tmp_path / 'run'}` goes on"
    assert outcome.err == f"metapl: stopped by SIGTERM: {said}\n"
    assert resumed(tmp_path / "run") == whole(*MLP)


@pytest.mark.slow
def test_while_methods_are_compared(whole, before, tmp_path):
    """Nothing is there yet; the same command compares again, with the same answer."""
    before(choosing, "_answers", terminate)
    command = ("train", *AUTO, "--out", tmp_path / "run")
    outcome = invoke(*command)
    assert outcome.code == 143
    assert outcome.err == "metapl: stopped by SIGTERM, before the first step: the same command begins it\n"
    assert not (tmp_path / "run").exists()
    assert invoke(*command).code == 0
    assert contents(tmp_path / "run") == whole(*AUTO)


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "step"), [("supervised", 1), ("uda", 12)])
def test_a_choice_is_made_once(whole, stop, tmp_path, monkeypatch, phase, step):
    """A run goes on with the method that it began with, and compares nothing again."""
    stop(phase, step, interrupt)
    assert invoke("train", *AUTO, "--out", tmp_path / "run").code == 130
    monkeypatch.setattr(choosing, "choose", None)  # which could not be called
    found = resumed(tmp_path / "run")
    monkeypatch.undo()
    assert found == whole(*AUTO)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["config"]["method"] == "uda"


def test_while_a_run_that_goes_on_is_prepared(before, stop, tmp_path):
    stop("mpl", 2, interrupt)
    assert invoke("train", *ALONE, "--out", tmp_path / "run").code == 130
    before(session, "_stand", terminate)
    outcome = invoke("train", "--resume", tmp_path / "run")
    assert outcome.code == 143
    assert outcome.err == (
        f"metapl: stopped by SIGTERM, before the first step: `metapl train --resume {tmp_path / 'run'}` goes on\n"
    )


def test_between_the_first_step_of_a_phase_and_the_last_of_the_one_before(whole, before, tmp_path):
    """The last step of the phase before is stored, although the next phase has begun."""
    before(loop, "start", terminate, call=2)
    outcome = invoke("train", *ALONE, "--out", tmp_path / "run")
    assert outcome.code == 143
    assert "step 4 of 4 of mpl is stored" in outcome.err
    assert resumed(tmp_path / "run") == whole(*ALONE)


DEAF = """
import ctypes, signal, sys
from metapl.cli import main, stops
from metapl.training import keeper, loop

see = keeper.Keeper.see

def seen(self, member, event):
    see(self, member, event)
    if isinstance(event, loop.Stepped) and event[:2] == ("mpl", 2):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # or the call would end with the signal
        print("deaf", flush=True)
        ctypes.CDLL(None).sleep(60)

keeper.Keeper.see = seen
stops.GRACE = 0.5
sys.argv[0] = "metapl"
main.main()
"""


@pytest.mark.slow
def test_a_call_that_does_not_return(whole, tmp_path):
    """A thread stores the last step and ends the process while the main thread is in a call into C."""
    command = [sys.executable, "-c", DEAF, "train", *map(str, ALONE), "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.stdout.readline() not in ("deaf\n", ""):
            pass
        began = time.monotonic()
        process.terminate()
        _, said = process.communicate()
        assert time.monotonic() - began < 10
    stored = f"step 2 of 4 of mpl is stored, `metapl train --resume {tmp_path / 'run'}` goes on"
    assert (process.returncode, said) == (143, f"metapl: stopped by SIGTERM: {stored}\n")
    assert resumed(tmp_path / "run") == whole(*ALONE)


def test_a_finished_run_whose_last_file_met_a_fault_has_its_last_step(whole, before, tmp_path):
    """Although states are stored only where a run is stopped."""

    def fail():
        raise OSError(28, "No space left on device", "there")

    before(run_folder, "save_end", fail)
    outcome = invoke("train", *ALONE, "--checkpoint-every", 0, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "step 3 of 3 of finetune is stored" in outcome.err
    before(keeper.Keeper, "_due", interrupt)  # no step is taken any more
    assert resumed(tmp_path / "run") == whole(*ALONE)
