"""`metapl train` without a method: what it says of its choice, and what it saves."""

import json
import tomllib

import pytest
from command import invoke

from metapl.training import choosing, seen, threads

TINY = ("--steps", "3", "--batch", "16", "--no-baselines", "--device", "cpu", "--model", "mlp:width=4,depth=1")
MOONS = ("--data", "moons:points=200", "--labels", "20", "--validation", "80")


def saved(folder):
    config = tomllib.loads((folder / "config.toml").read_text())
    return {name: config[name] for name in ("method", "grad", "model", "guide", "alignment")}


def test_one_label_a_class(tmp_path):
    outcome = invoke("train", *TINY, "--validation", "0", "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert "method     uda: one label a class leaves nothing to compare on" in lines
    assert "targets    guided by consensus, uniform alignment" in lines
    assert not any("right:" in line for line in lines)
    settled = {"method": "uda", "grad": "exact", "guide": "consensus", "alignment": "uniform"}
    assert saved(tmp_path / "run") == {**settled, "model": "mlp:width=4,depth=1"}
    assert set(json.loads((tmp_path / "run" / "summary.json").read_text())["test"]) == {"consensus", "uda"}


def test_another_method_is_taken_and_the_scores_are_printed(tmp_path):
    """After a step of no length a network knows nothing."""
    outcome = invoke("train", *TINY, *MOONS, "--lr", "1e-6", "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    method = saved(tmp_path / "run")["method"]
    assert method in ("logistic", "self-training", "spreading")
    assert f"method     {method}: 80 validation examples" in outcome.out.splitlines()
    (right,) = (line for line in outcome.out.splitlines() if line.startswith("           right: uda "))
    assert right.count("/80") == 6
    assert ("worse than from the labels alone" in outcome.out) == (method == "logistic")


def test_the_run_takes_what_the_comparison_has_fitted(tmp_path, monkeypatch):
    gather, asked = seen.gather, []
    monkeypatch.setattr(seen, "gather", lambda one: asked.append(one.config.alignment) or gather(one))
    assert invoke("train", *TINY, *MOONS, "--out", tmp_path / "run").code == 0
    assert asked == ["none", "uniform"]


def test_threads_are_settled_where_a_run_begins_and_where_it_goes_on(tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(threads, "settle", lambda one, together: counts.append((one.config.model, together)))
    flags = ("--data", "moons:points=60", "--labels", "2", "--validation", "0", "--seeds", "2")
    assert invoke("train", *TINY, *flags, "--out", tmp_path / "runs").code == 0
    assert invoke("train", "--resume", tmp_path / "runs").code == 0
    assert counts == [(TINY[-1], 2)] * 2


@pytest.mark.parametrize(
    ("flags", "method"), [(("--method", "supervised"), "supervised"), (("--grad", "none", "--guide", "none"), "mpl")]
)
def test_what_is_named_is_not_compared(tmp_path, flags, method):
    outcome = invoke("train", *TINY, *MOONS, *flags, "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert "method     " not in outcome.out
    assert saved(tmp_path / "run")["method"] == method


def test_the_folder_is_named_after_what_was_chosen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("train", *TINY, "--data", "moons:points=60", "--labels", "2", "--validation", "0").code == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["moons_points_60-uda-seed0"]


def test_a_folder_that_is_there_is_refused_before_anything_is_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "choose", None)  # which could not be called
    (tmp_path / "notes.txt").write_text("mine")
    outcome = invoke("train", "--out", tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"metapl: --out {tmp_path} exists already: name a new folder, or remove this one\n"
