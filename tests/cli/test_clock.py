"""A clock that somebody sets in the middle of a run, and steps that do not end: time as the test has it."""

import json
import os

import pytest
from clock import AtOnce, Clock
from command import invoke
from going_on import ALONE, EVERY, contents, interrupt, resumed

from metapl.cli import display, train
from metapl.files import lock
from metapl.training import keeper, loop, pace, population, progress, run_folder, session, state_files, stored

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

STEP = 40.0
"""Seconds."""

LONGER = (*ALONE, "--finetune-steps", 14)

YEAR = 365 * 24 * 3600.0

JUMPS = {("mpl", 2): -YEAR, ("mpl", 3): 3 * YEAR, ("finetune", 1): -5 * YEAR, ("finetune", 2): YEAR}
"""By how much the clock is set in a step."""


@pytest.fixture
def expected(whole):
    """The files of a run whose time nobody has touched; to be asked for before `clock`."""
    return whole(*ALONE)


@pytest.fixture
def longer(whole):
    """The same of one with steps enough to know what is usual."""
    return whole(*LONGER)


@pytest.fixture
def clock(monkeypatch):
    """All of a run is told the time by it; `clock.takes(phase, step)` seconds pass in a step, and nothing else does."""
    found = Clock()
    found.takes = lambda phase, step: STEP
    found.jumps = {}
    for module in (keeper, loop, pace, stored, run_folder, progress, display, train):
        monkeypatch.setattr(module, "time", found)
    monkeypatch.setattr(keeper, "ThreadPoolExecutor", AtOnce)
    train_all = population.train_all

    def timed(*args):
        for member, event in train_all(*args):
            if isinstance(event, loop.Stepped):
                found.go(found.takes(event.phase, event.step))
                found.wall += found.jumps.get((event.phase, event.step), 0.0)
            yield member, event

    monkeypatch.setattr(population, "train_all", timed)
    return found


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def seconds(run):
    return json.loads((run / "summary.json").read_text())["seconds"]


def files(run):
    """Without the states that `--keep` has left."""
    return {name: found for name, found in contents(run).items() if "state-" not in name}


def test_a_clock_that_jumps(expected, clock, tmp_path):
    """States are stored each minute, which is every second step, and times and rates are those that passed."""
    clock.jumps = JUMPS
    options = ("--checkpoint-every", "1m", "--keep", 9, "--time-limit", "1h")
    outcome = invoke("train", *ALONE, *options, "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert files(tmp_path / "run") == expected
    assert seconds(tmp_path / "run") == 7 * STEP
    found = lines(tmp_path / "run")
    assert [line["seconds"] for line in found] == [2 * STEP, 4 * STEP, 6 * STEP, 7 * STEP]
    assert [line["images_per_second"] for line in found[:2]] == [32 / STEP] * 2  # the 20 labelled ones, and 12
    assert [state_files.steps_of(path) for path in state_files.states(tmp_path / "run")] == [6, 4, 2]
    assert [state_files.newest(tmp_path / "run").seconds] == [6 * STEP]


def test_the_time_of_a_run_is_the_sum_of_its_parts(expected, clock, tmp_path):
    """Hours pass between them, and the machine begins anew, which sets both clocks."""
    clock.jumps = JUMPS
    outcome = invoke("train", *ALONE, "--time-limit", "2m", "--out", tmp_path / "run")
    assert outcome.code == 75
    assert outcome.err.startswith("metapl: --time-limit 2m is over: step 3 of 4 of mpl is stored")
    clock.steady, clock.wall = 5.0, 3600.0
    outcome = invoke("train", "--resume", tmp_path / "run", "--time-limit", "2m")
    assert outcome.code == 75
    assert outcome.err.startswith("metapl: --time-limit 2m is over: step 2 of 3 of finetune is stored")
    clock.steady = 7e6
    assert resumed(tmp_path / "run") == expected
    assert seconds(tmp_path / "run") == 7 * STEP
    assert [line["seconds"] for line in lines(tmp_path / "run")] == [2 * STEP, 4 * STEP, 6 * STEP, 7 * STEP]
    assert [line["images_per_second"] for line in lines(tmp_path / "run")[:2]] == [32 / STEP] * 2


def test_a_step_that_takes_far_longer_than_the_others(longer, clock, tmp_path):
    clock.takes = lambda phase, step: 500.0 if (phase, step) == ("finetune", 12) else 0.25
    outcome = invoke("train", *LONGER, "--out", tmp_path / "run")
    assert outcome.code == 0
    assert outcome.err == (
        "metapl: step 12 of finetune took 500 s, where 0.25 s is usual: "
        "was the disk, the machine or the network held up?\n"
    )
    assert contents(tmp_path / "run") == longer


# ---------------------------------------------------------------- what is seen from outside


@pytest.fixture
def stands(clock, stop, tmp_path):
    """A run with one line every eight seconds, the last of which has just been written, and an older state."""
    clock.takes = lambda phase, step: 4.0
    stop("finetune", 1, interrupt)
    run = tmp_path / "run"
    assert invoke("train", *ALONE, *EVERY, "--steps", 10, "--out", run).code == 130
    for path, age in ((run / "metrics.jsonl", 0), *((path, 30) for path in state_files.states(run))):
        os.utime(path, (clock.wall - age, clock.wall - age))
    return run


def silent(run):
    with lock.Held(run):
        return progress.of(run).silent


def test_a_run_that_is_silent(clock, stands):
    """It says so after ten times what is usual between two lines."""
    clock.go(80)
    assert not silent(stands)
    clock.go(1)
    assert not progress.of(stands).silent  # nobody holds it: it was stopped
    with lock.Held(stands):
        found = progress.of(stands)
        assert (found.condition, found.silent) == ("running", True)
        assert (found.written_seconds_ago, found.usual_seconds, found.stored_seconds_ago) == (81, 8, 111)
        one = invoke("status", stands).out.splitlines()
        outcome = invoke("status", stands.parent, "--json", stands.parent / "found.json")
    assert one[1] == "state      running"
    assert "silent     nothing written for 81 s, where 8 s is usual" in one
    assert outcome.out.splitlines()[1:] == one[1:]
    assert json.loads((stands.parent / "found.json").read_text())[0]["silent"] is True


def test_of_several_runs_the_one_that_is_silent_says_so(clock, stands, train):
    clock.go(3600)
    (stands.parent / "other").symlink_to(train(*ALONE))
    with lock.Held(stands):
        outcome = invoke("status", stands.parent)
    assert [line.partition("; ")[2] for line in outcome.out.splitlines()] == [
        "",
        "nothing written for 60 min, where 8 s is usual",
    ]


def test_a_state_is_something_written_too(clock, stands):
    clock.go(1000)
    assert silent(stands)
    os.utime(state_files.states(stands)[0], (clock.wall, clock.wall))
    assert not silent(stands)


def test_short_silences_are_usual(clock, stands):
    """Lines every tenth of a second: a minute at least."""
    changed = [{**line, "seconds": place / 8} for place, line in enumerate(lines(stands))]
    (stands / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
    os.utime(stands / "metrics.jsonl", (clock.wall, clock.wall))
    clock.go(60)
    assert not silent(stands)
    clock.go(1)
    assert silent(stands)
    with lock.Held(stands):
        assert "silent     nothing written for 61 s, where 0.12 s is usual" in invoke("status", stands).out


def test_before_two_lines_nothing_is_usual(clock, stands):
    (stands / "metrics.jsonl").write_text(json.dumps(lines(stands)[0]) + "\n")
    clock.go(1e6)
    assert not silent(stands)


def test_one_long_wait_changes_nothing_of_what_is_usual(clock, stands):
    found = lines(stands)
    found[-1]["seconds"] += 5000
    (stands / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    assert progress.of(stands).usual_seconds == 8


def test_a_clock_that_was_set_back_since_the_last_line(clock, stands):
    clock.wall -= YEAR
    found = progress.of(stands)
    assert (found.written_seconds_ago, found.stored_seconds_ago, found.silent) == (0, 0, False)
    assert found.steps_per_second is None or found.steps_per_second > 0


def test_a_state_that_is_removed_while_it_is_looked_at(stands, monkeypatch):
    monkeypatch.setattr(state_files, "states", lambda run: [run / "checkpoints" / "state-000000000012.safetensors"])
    found = progress.of(stands)
    assert (found.stored, found.stored_seconds_ago) == ("step 2 of 3 of finetune", None)
    assert "stored" not in invoke("status", stands).out


def test_a_run_that_goes_on_is_not_silent_since_it_was_stopped(stands, monkeypatch):
    """From the moment on at which a process holds it."""
    os.utime(stands / "metrics.jsonl", (0, 0))
    stand, seen = session._stand, []

    def standing(*args):
        seen.append((stands / "metrics.jsonl").stat().st_mtime)
        return stand(*args)

    monkeypatch.setattr(session, "_stand", standing)
    assert invoke("train", "--resume", stands).code == 0
    assert seen[0] > 0
