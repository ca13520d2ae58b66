"""`metapl status`, and `metapl report` on a run that is not finished."""

import json
import os

import pytest
from command import invoke
from going_on import ALONE, MLP, interrupt

from metapl.cli import status
from metapl.files import lock
from metapl.training import keeper, progress, state_files

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def shown(place, *args):
    outcome = invoke("status", place, *args)
    assert (outcome.code, outcome.err) == (0, "")
    return {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1].rstrip() for line in outcome.out.splitlines()}


@pytest.fixture
def cut(stop, tmp_path):
    """A run that was stopped after step 3 of 4 of its fourth phase."""
    stop("mpl", 3, interrupt)
    assert invoke("train", *MLP, "--out", tmp_path / "run").code == 130
    return tmp_path / "run"


def test_a_run_that_was_stopped(cut):
    found = shown(cut)
    assert found["state"] == "stopped"
    assert found["phase"] == "mpl, step 3 of 4 (phase 4 of 5)"
    assert found["stored"].startswith("step 3 of 4 of mpl, ")
    assert found["next"] == f"metapl train --resume {cut}"
    (line,) = [line for line in (cut / "metrics.jsonl").read_text().splitlines() if '"mpl"' in line]
    assert found["exam"] == f"▁  {json.loads(line)['metrics']['exam']:.3f} → {json.loads(line)['metrics']['exam']:.3f}"


def test_a_run_that_goes_on_and_how_long(cut):
    """Reports at steps 2 and 4 of the phase, 8 seconds apart: half a second a step is left for one step and five."""
    lines = [{**json.loads(line), "seconds": 0.0} for line in (cut / "metrics.jsonl").read_text().splitlines()]
    lines[-1]["seconds"] = 10.0
    lines.append({**lines[-1], "step": 4, "seconds": 18.0})
    (cut / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"phase": "fine')
    state = state_files.states(cut)[0]
    past = state.stat().st_mtime - 100
    os.utime(state, (past, past))
    with lock.Held(cut):
        found = progress.of(cut)
    assert (found.condition, found.phase, found.step) == ("running", "mpl", 4)
    assert found.steps_per_second == pytest.approx(2 / 8)
    assert found.seconds_left == pytest.approx(3 * 4)
    assert found.stored_seconds_ago == pytest.approx(100, abs=20)


def test_a_run_that_is_finished(tmp_path):
    assert invoke("train", *ALONE, "--out", tmp_path / "run").code == 0
    found = shown(tmp_path / "run")
    assert found["state"] == "finished"
    assert found["phase"] == "finetune, step 3 of 3 (phase 2 of 2)"
    assert "next" not in found


def test_all_runs_in_a_folder_and_as_json(cut, tmp_path):
    assert invoke("train", *ALONE, "--seeds", 2, "--out", tmp_path / "several").code == 0
    outcome = invoke("status", tmp_path, "--json", tmp_path / "found.json")
    assert outcome.out.splitlines() == [
        f"stopped   {cut}: mpl, step 3 of 4",
        f"finished  {tmp_path}/several/seed0: finetune, step 3 of 3",
        f"finished  {tmp_path}/several/seed1: finetune, step 3 of 3",
    ]
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["condition"] for one in found] == ["stopped", "finished", "finished"]


def test_a_folder_without_a_run(tmp_path):
    outcome = invoke("status", tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "holds no run" in outcome.err


def test_a_run_that_has_not_stored_anything_yet(stop, tmp_path, monkeypatch):
    monkeypatch.setattr(keeper.Keeper, "_store", lambda self: None)
    stop("supervised", 1, interrupt)
    assert invoke("train", *MLP, "--out", tmp_path / "run").code == 130
    assert shown(tmp_path / "run").keys() == {"run", "state", "next"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"), ([5, 5], "▁▁"), ([7, None, 0], "█ ▁"), ([None], " "), ([], "")],
)
def test_sparklines(values, expected):
    assert status.sparkline(values) == expected


def test_long_curves_are_as_wide_as_they_may_be():
    assert status.sparkline(list(range(1000)), 4) == "▁▃▆█"


def test_a_report_of_a_run_that_is_not_finished(cut):
    """The networks are those of its last state, and the run is left as it is."""
    before = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    outcome = invoke("report", cut)
    assert (outcome.code, outcome.err) == (0, "")
    page = (cut / "report.html").read_text()
    assert "The run is not finished: this is what it had after step 3 of 4 of mpl." in page
    (cut / "report.html").unlink()
    assert {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()} == before


def test_a_report_of_a_run_that_has_stored_nothing(tmp_path, stop, monkeypatch):
    monkeypatch.setattr(keeper.Keeper, "_store", lambda self: None)
    stop("supervised", 1, interrupt)
    assert invoke("train", *MLP, "--out", tmp_path / "run").code == 130
    outcome = invoke("report", tmp_path / "run")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
