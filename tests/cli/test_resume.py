"""`metapl train --resume`: a run that was stopped ends with the files of one that was not."""

import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from command import invoke
from going_on import ALONE, EVERY, MLP, contents, interrupt, resumed
from paced import quick_and_slow

from metapl.cli import train
from metapl.core import tree
from metapl.training import keeper, population, state_files

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

PHASES = [("supervised", 1), ("pseudo-labels", 4), ("uda", 2), ("mpl", 3), ("finetune", 3)]


@pytest.mark.parametrize(("phase", "step"), quick_and_slow(PHASES, [("mpl", 3), ("finetune", 3)]))
def test_a_run_that_is_stopped_in_any_phase_goes_on(whole, stop, tmp_path, phase, step):
    stop(phase, step, interrupt)
    outcome = invoke("train", *MLP, "--out", tmp_path / "run")
    total = 3 if phase == "finetune" else 4
    said = f"step {step} of {total} of {phase} is stored, `metapl train --resume {tmp_path / 'run'}` goes on"
    assert (outcome.code, outcome.err) == (130, f"metapl: interrupted: {said}\n")
    assert resumed(tmp_path / "run") == whole(*MLP)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT"])
def test_signals(request, whole, stop, tmp_path, name):
    number = getattr(signal, name)
    before = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    found = signal.signal(number, before)  # nohup, for one, has SIGHUP ignored
    request.addfinalizer(lambda: signal.signal(number, found))
    stop("mpl", 2, lambda: os.kill(os.getpid(), number))
    outcome = invoke("train", *ALONE, "--out", tmp_path / "run")
    assert outcome.code == 128 + number
    assert outcome.err.startswith("metapl: interrupted: " if name == "SIGINT" else f"metapl: stopped by {name}: ")
    assert outcome.err.count("\n") == 1
    assert "step 2 of 4 of mpl is stored" in outcome.err
    assert signal.getsignal(number) is before
    assert resumed(tmp_path / "run") == whole(*ALONE)


def test_a_signal_that_is_ignored_stays_so(whole, stop, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop("mpl", 2, lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert invoke("train", *ALONE, "--out", tmp_path / "run").code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_same_command_offers_it(stop, tmp_path):
    stop("mpl", 2, interrupt)
    invoke("train", *ALONE, "--out", tmp_path / "run")
    outcome = invoke("train", *ALONE, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert f"not finished: `metapl train --resume {tmp_path / 'run'}` goes on with it" in outcome.err


def test_a_folder_in_which_a_process_was_killed_over_its_first_file_counts_for_nothing(whole, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.toml.77.tmp.toml").write_text("half")
    assert invoke("train", *ALONE, "--out", tmp_path / "run").code == 0
    assert contents(tmp_path / "run") == whole(*ALONE)


def test_a_run_that_stored_nothing_begins_again(whole, stop, tmp_path, monkeypatch):
    monkeypatch.setattr(keeper.Keeper, "_store", lambda self: None)
    stop("mpl", 3, interrupt)
    outcome = invoke("train", *ALONE, "--out", tmp_path / "run")
    assert outcome.err.endswith(f"`metapl train --resume {tmp_path / 'run'}` begins it again\n")
    monkeypatch.undo()
    assert resumed(tmp_path / "run") == whole(*ALONE)


@pytest.mark.parametrize("options", [("--unroll", 4), ("--method", "reduced"), ("--grad", "first-order")], ids=str)
def test_other_runs(whole, stop, tmp_path, options):
    stop("reduced" if "reduced" in options else "mpl", 3, interrupt)
    assert invoke("train", *ALONE, *options, "--out", tmp_path / "run").code == 130
    assert resumed(tmp_path / "run") == whole(*ALONE, *options)


def test_a_run_that_is_stopped_again_and_again(whole, stop, tmp_path):
    command = ("train", *ALONE, "--out", tmp_path / "run")
    for phase, step in (("mpl", 1), ("mpl", 2), ("mpl", 4), ("finetune", 1), ("finetune", 3)):
        stop(phase, step, interrupt)
        assert invoke(*command).code == 130
        command = ("train", "--resume", tmp_path / "run")
    assert resumed(tmp_path / "run") == whole(*ALONE)


def test_several_seeds(whole, stop, tmp_path):
    stop("mpl", 3, interrupt)
    outcome = invoke("train", *ALONE, "--seeds", 2, "--seed", 5, "--out", tmp_path / "runs")
    assert f"`metapl train --resume {tmp_path / 'runs'}` goes on" in outcome.err
    assert resumed(tmp_path / "runs") == whole(*ALONE, "--seeds", 2, "--seed", 5)


@pytest.mark.parametrize("stops", [[("mpl", 3)], [("mpl", 3), ("finetune", 1)]])
def test_seeds_that_train_one_after_another(whole, stop, tmp_path, monkeypatch, stops):
    """The second of them is stopped once, or each of them is."""
    monkeypatch.setattr(population, "refuses", lambda experiments: "the test says so")
    args = (*ALONE, "--seeds", 2)
    expected = whole(*args, "--seed", 7)
    command = ("train", *args, "--seed", 7, "--out", tmp_path / "runs")
    for phase, step in stops:
        stop(phase, step, interrupt)
        assert invoke(*command).code == 130
        command = ("train", "--resume", tmp_path / "runs")
    assert resumed(tmp_path / "runs") == expected


def test_a_process_of_several(whole, stop, tmp_path, monkeypatch):
    args = (*ALONE, "--seeds", 3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        invoke("train", *args, "--out", tmp_path / "whole")
    stop("mpl", 3, interrupt)
    monkeypatch.setenv("RANK", "0")
    assert invoke("train", *args, "--out", tmp_path / "runs").code == 130
    for rank in (0, 1):  # the other was killed before it began
        monkeypatch.setenv("RANK", str(rank))
        assert invoke("train", "--resume", tmp_path / "runs").code == 0
    assert contents(tmp_path / "runs") == contents(tmp_path / "whole")


def test_another_number_of_processes_is_refused(stop, tmp_path, monkeypatch):
    stop("mpl", 3, interrupt)
    assert invoke("train", *ALONE, "--seeds", 3, "--out", tmp_path / "runs").code == 130
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    outcome = invoke("train", "--resume", tmp_path / "runs")
    assert outcome.code == 2
    assert "has states of the seeds 0 1 2: take as many processes as there were then" in outcome.err


# ---------------------------------------------------------------- states


def test_the_last_two_states_stay_until_the_run_is_over(whole, stop, tmp_path):
    stop("finetune", 2, interrupt)
    assert invoke("train", *ALONE, *EVERY, "--out", tmp_path / "run").code == 130
    found = state_files.states(tmp_path / "run")
    assert 1 <= len(found) <= 2
    assert state_files.steps_of(found[0]) == 4 + 2  # of all phases, as `metapl status` counts them
    assert resumed(tmp_path / "run", *EVERY) == whole(*ALONE)


def test_more_states_may_stay(tmp_path):
    assert invoke("train", *ALONE, *EVERY, "--keep", 3, "--out", tmp_path / "run").code == 0
    assert 1 <= len(state_files.states(tmp_path / "run")) <= 3


def test_the_time_limit_stores_and_stops(whole, tmp_path):
    outcome = invoke("train", *ALONE, "--time-limit", "0.000001s", "--out", tmp_path / "run")
    assert outcome.code == 75
    assert outcome.err.startswith("metapl: --time-limit 0.000001s is over: step 1 of 4 of mpl is stored")
    assert resumed(tmp_path / "run") == whole(*ALONE)


def test_the_time_limit_counts_from_the_start_of_the_command(whole, tmp_path, monkeypatch):
    """What reading the data and comparing methods take is in it."""
    monkeypatch.setattr(train, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter() - 7200))
    outcome = invoke("train", *ALONE, "--time-limit", "1h", "--out", tmp_path / "run")
    assert outcome.code == 75
    assert outcome.err.startswith("metapl: --time-limit 1h is over: step 1 of 4 of mpl is stored")
    monkeypatch.undo()
    assert resumed(tmp_path / "run", "--time-limit", "1h") == whole(*ALONE)


def spoil(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_state_is_said_and_the_one_before_is_used(whole, stop, tmp_path, monkeypatch):
    monkeypatch.setattr(keeper.Keeper, "_due", lambda self, at: True)  # each state is waited for
    stop("mpl", 3, interrupt)
    assert invoke("train", *ALONE, "--out", tmp_path / "run").code == 130
    last, _ = state_files.states(tmp_path / "run")
    spoil(last, 100)
    outcome = invoke("train", "--resume", tmp_path / "run")
    assert outcome.code == 0
    assert outcome.err.startswith(f"metapl: {last} cannot be read (")
    assert outcome.err.endswith("it was cut or has changed, remove it; the one before it is used\n")
    assert contents(tmp_path / "run") == whole(*ALONE)


def test_what_a_killed_process_left_half_written_is_removed(cut, whole):
    (cut / "checkpoints" / ".state-000000000003.safetensors.77.tmp.safetensors").write_bytes(b"half")
    (cut / ".summary.json.77.tmp.json").write_bytes(b"half")
    assert resumed(cut) == whole(*ALONE)


def test_the_log_is_cut_to_the_state(cut, whole):
    with (cut / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "mpl", "step": 4, "metrics": {}, "validation": {}}\n{"phase": "finetune", "st')
    assert resumed(cut) == whole(*ALONE)


def test_a_log_that_lost_lines_is_said(stop, tmp_path):
    stop("finetune", 1, interrupt)
    assert invoke("train", *ALONE, "--out", tmp_path / "run").code == 130
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    outcome = invoke("train", "--resume", tmp_path / "run")
    assert outcome.code == 0
    assert "metrics.jsonl lacks 2 of the 2 lines before the step that is next" in outcome.err


def test_a_loss_that_diverges_leaves_the_last_state_with_numbers(tmp_path, monkeypatch):
    """The error is one line, and says where the run can go on from."""
    monkeypatch.setattr(keeper.Keeper, "_due", lambda self, at: True)
    options = ("--method", "supervised", "--lr", "1e25", "--steps", 9, "--report-every", 9)
    outcome = invoke("train", *ALONE, *options, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "is no longer finite, from step 2 on, as is known by step 9: lower --lr" in outcome.err
    assert "; step 1 of 9 of supervised is stored, `metapl train --resume" in outcome.err
    found = state_files.newest(tmp_path / "run")
    assert all(bool(torch.isfinite(leaf).all()) for leaf in tree.leaves(found.state))


def test_a_fault_of_the_program_leaves_a_state(stop, tmp_path, whole, capsys):
    def fail():
        raise ZeroDivisionError("a fault")

    stop("mpl", 3, fail)
    with pytest.raises(ZeroDivisionError, match="a fault"):
        invoke("train", *ALONE, "--out", tmp_path / "run")
    assert resumed(tmp_path / "run") == whole(*ALONE)


def test_memory_that_is_not_enough_leaves_a_state(stop, tmp_path, whole):
    def fail():
        raise MemoryError

    stop("mpl", 3, fail)
    outcome = invoke("train", *ALONE, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "step 3 of 4 of mpl is stored" in outcome.err
    assert "there is not enough memory for this: give --microbatch" in outcome.err
    assert resumed(tmp_path / "run") == whole(*ALONE)
