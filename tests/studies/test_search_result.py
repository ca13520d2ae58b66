"""What a search writes, and the input that it refuses."""

import math
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
from searching import COMMON, RATES, Fake, build, lines_of, runs_of, searched

from metapl.registry.errors import InputError
from metapl.studies import search, search_space, specification

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


# ---------------------------------------------------------------- what is written


def test_the_study_that_is_written(tmp_path, monkeypatch):
    """It trains the configuration of the best trial, on the seeds of the study."""
    about = build(seeds=5, against="exact")
    found, (path,) = searched(monkeypatch, tmp_path / "out", about)
    assert path == tmp_path / "out" / "tuned.toml"
    written = specification.read(path)
    assert written._replace(arms={}) == about._replace(arms={})
    runs = {(run["arm"], run["seed"]): run["config"] for run in runs_of(tmp_path / "out")}
    for job in specification.jobs(written):
        one = next(one for one in found if one.arm == job.arm)
        assert {**asdict(job.config), "seed": 1000} == runs[f"{job.arm}#{one.best.number}", 1000]
    assert tomllib.loads(path.read_text())["tune"] == {"lr": RATES, "teacher_lr": RATES}


def test_the_comment_tells_the_budget(tmp_path, monkeypatch):
    found, (path,) = searched(monkeypatch, tmp_path / "out", build())
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert "16 trials of every arm on the seeds 1000 to 1003, by TPE of optuna " in head[0]
    for line, one in zip(head[2:], found, strict=True):
        scores = f"{100 * one.trials[0].mean:.2f} → {100 * max(trial.mean for trial in one.trials):.2f} %"
        assert line == f"# {one.arm}: {scores} on 20 examples"


def test_a_study_for_every_setting(tmp_path, monkeypatch):
    about = build({"trials": 2, "lr": RATES}, over={"labels": [8, 10], "steps": [3, 4]})
    found, paths = searched(monkeypatch, tmp_path / "out", about)
    names = [f"tuned-labels={labels},_steps={steps}.toml" for labels in (8, 10) for steps in (3, 4)]
    assert [path.name for path in paths] == names
    written = specification.read(paths[2])
    assert written.common == {**COMMON, "labels": 10, "steps": 3}
    assert written.over == {}
    here = [one for one in found if one.condition == {"labels": 10, "steps": 3}]
    assert {one.arm: one.best.values["lr"] for one in here} == {arm: v["lr"] for arm, v in written.arms.items()}
    assert len(lines_of(tmp_path / "out")) == len(runs_of(tmp_path / "out")) / 4 == 4 * 2 * 2


def test_settings_are_tuned_apart(tmp_path, monkeypatch):
    """What is best in one is not asked of the other."""
    about = build({"trials": 32, "seeds": 1, "lr": RATES}, over={"steps": [3, 30]})
    fake = Fake(lambda config: 1 - 0.1 * abs(math.log10(config.lr / (0.003 if config.steps == 3 else 0.3))))
    found, _ = searched(monkeypatch, tmp_path / "out", about, fake)
    for one in found:
        best = 0.003 if one.condition["steps"] == 3 else 0.3
        assert one.best.values["lr"] == pytest.approx(best, rel=0.8)


def test_every_trial_is_a_line(tmp_path, monkeypatch):
    found, _ = searched(monkeypatch, tmp_path / "out", build({"trials": 2, "lr": RATES}, over={"labels": [8]}))
    trial = found[1].trials[1]
    assert lines_of(tmp_path / "out")[3] == {
        "setting": {"labels": 8},
        "arm": "exact",
        "number": 1,
        "values": trial.values,
        "mean": trial.mean,
        "scores": list(trial.scores),
    }


# ---------------------------------------------------------------- bad input

BAD = [
    ({}, "nothing to tune"),
    ({"trials": 3}, "nothing to tune"),
    ({"lr": RATES, "trials": 0}, "trials = 0 must be a whole number of at least 1"),
    ({"lr": RATES, "trials": True}, "trials = True must be a whole number"),
    ({"lr": RATES, "seeds": 0}, "seeds = 0"),
    ({"lr": RATES, "seeds": 2.0}, "seeds = 2.0"),
    ({"lr": RATES, "first_seed": -1}, "first_seed = -1"),
    ({"lr": RATES, "first_seed": 3}, "seed 3 is one of the study's too.*first_seed = 4"),
    ({"lr": RATES, "first_seed": 0, "seeds": 1}, "seed 0 is one of the study's too"),
    ({"lr": RATES, "trails": 3}, "'trails': did you mean 'trials'"),
    ({"lrr": RATES}, "'lrr': did you mean 'lr'"),
    ({"seed": [1, 2]}, "seed cannot be tuned"),
    ({"validation": [20, 30]}, "validation cannot be tuned"),
    ({"lr": 0.1}, r"lr must be a list of choices, as in lr = \[0.1\], or a range { low = …, high = … }"),
    ({"lr": []}, "lr must be a list of choices"),
    ({"lr": [0.1, "a"]}, "lr = 'a' must be a number"),
    ({"lr": [0.1, 0.0]}, "lr = 0.0 must be more than 0"),
    ({"lr": {"low": 0.0, "high": 1.0}}, "lr = 0.0 must be more than 0"),
    ({"smoothing": {"low": 0.0, "high": 1.5}}, "smoothing = 1.5 must be at most 1"),
    ({"lr": {"low": 0.1}}, "needs both ends"),
    ({"lr": {"low": 0.1, "hihg": 1.0}}, "'hihg': did you mean 'high'"),
    ({"lr": {"low": 0.3, "high": 0.1}}, "a low end below its high end"),
    ({"lr": {"low": 0.3, "high": 0.3}}, "a low end below its high end"),
    ({"lr": {"low": 0.3, "high": math.inf}}, "a low end below its high end"),
    ({"lr": {"low": 0.3, "high": math.nan}}, "a low end below its high end"),
    ({"smoothing": {"low": 0.0, "high": 0.5, "log": True}}, "log of smoothing"),
    ({"lr": {**RATES, "log": 1}}, "log of lr"),
    ({"batch": {"low": 1.5, "high": 3}}, "batch = 1.5 must be a whole number"),
    ({"balanced": [True]}, "balanced cannot be tuned"),
    ({"labelled_in_unlabelled": {"low": 0, "high": 1}}, "labelled_in_unlabelled is no number"),
    ({"model": {"low": 0, "high": 1}}, "model is no number"),
    ({"warmup": [0, 3]}, "warmup = 3"),
]


@pytest.mark.parametrize(("space", "message"), BAD, ids=[str(space) for space, _ in BAD])
def test_bad_input(space, message):
    with pytest.raises(InputError, match=message) as error:
        search_space.read(build(space), "study.toml")
    assert "\n" not in str(error.value)


def test_what_varies_already():
    with pytest.raises(InputError, match=r"lr is in \[over\] already"):
        search_space.read(build({"lr": RATES}, over={"lr": [0.1, 0.2]}), "study.toml")


def test_the_budget_unless_it_is_given():
    found = search_space.read(build({"lr": RATES}), "study.toml")
    assert (found.trials, tuple(found.seeds)) == (16, (1000, 1001, 1002, 1003))


def test_an_arm_without_validation_examples(tmp_path):
    about = build(arms={"none": {}, "blind": {"validation": 0}})
    with pytest.raises(InputError, match="arm 'blind' has no validation examples"):
        search.start(about, search_space.read(about, "study.toml"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="without torchrun"):
        search.start(build(), search_space.read(build(), "study.toml"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_optuna_is_missing(tmp_path, monkeypatch):
    """One line with the remedy, before anything is written."""
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"tune needs a package .*: pip install 'metapl\[tune\]'") as error:
        search.start(build(), search_space.read(build(), "study.toml"), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_extra_brings_it():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["tune"] == ["optuna>=4"]
