"""`metapl tune`: a closed form in place of training, whose best point is known; and one small search that trains."""

import json
import math
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import assert_one_line, invoke

from metapl.registry.errors import InputError
from metapl.studies import execution, search, search_result, search_space, specification

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

COMMON = {"data": "moons:points=100", "labels": 8, "validation": 20, "steps": 3, "device": "cpu"}
RATES = {"low": 0.001, "high": 1.0}
BEST = 0.03
"""The learning rate that is best, by the closed form."""


def peak(config):
    """1 at lr = BEST, and a tenth lower for each power of ten away from it; lower by a tenth with smoothing."""
    return 1 - 0.1 * abs(math.log10(config.lr / BEST)) - 0.1 * config.smoothing


def flat(config):
    """The same for all."""
    return 0.5


def metrics(top1):
    return {"top1": top1, "top5": 1.0, "nll": 1.0, "ece": 0.0}


class Fake:
    """In place of `sweep.run`: runs whose finetuned student has the score that a function gives, shifted by the seed.

    On the test set, and for the other networks, the better configurations are the worse ones.
    """

    def __init__(self, score=peak, stop=math.inf):
        self.score, self.stop, self.trained, self.rounds = score, stop, [], []

    def __call__(self, jobs, folder, *told):
        self.rounds.append(len(jobs))
        assert len({job.name for job in jobs}) == len(jobs)
        for index, job in enumerate(jobs):
            path = execution._path(folder, job)
            if path.exists():
                continue
            if len(self.trained) == self.stop:
                raise KeyboardInterrupt
            told[-1](execution.Progress(index, 1, job.name, "mpl", 1, 3))
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(self.run(job)))
            self.trained.append(job)

    def run(self, job):
        score = self.score(job.config) + 0.001 * (job.config.seed % 7)
        networks = {"teacher": metrics(1 - score), "ema": metrics(1 - score), "finetuned": metrics(score)}
        return {
            "setting": dict(job.condition),
            "arm": job.arm,
            "seed": job.config.seed,
            "finite": False,
            "validation": networks,
            "test": {name: metrics(1 - row["top1"]) for name, row in networks.items()},
            "config": asdict(job.config),
            "log": [],
        }


def build(space=None, **found):
    """A study of two arms, the first of which sets the rate of the teacher itself."""
    arms = {"none": {"grad": "none", "teacher_lr": 0.5}, "exact": {}}
    space = {"lr": RATES, "teacher_lr": RATES} if space is None else space
    return specification.build({"common": COMMON, "seeds": 4, "tune": space, "arms": arms, **found}, "study.toml")


def searched(monkeypatch, out, about, fake=None):
    """All searches of a study, and the files that are written."""
    monkeypatch.setattr(execution, "run", fake or Fake())
    allowed = search_space.read(about, "study.toml")
    found = search.run(search.start(about, allowed, out), allowed, out, 32, print, lambda at: None)
    return found, search_result.write(about, allowed, found, out)


def lines_of(out):
    return [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]


def runs_of(out):
    return [json.loads(path.read_text()) for path in (out / "runs").iterdir()]


# ---------------------------------------------------------------- what is searched


def test_what_is_best_on_the_validation_part_is_found(tmp_path, monkeypatch):
    """Within 0.15 powers of ten of the best; a search for what is worst, or best on the test set, ends at an end."""
    space = {"trials": 40, "seeds": 1, "lr": RATES}
    found, _ = searched(monkeypatch, tmp_path / "out", build(space))
    for one in found:
        assert one.best.values["lr"] == pytest.approx(BEST, rel=10**0.15 - 1)
        assert one.best.mean == max(trial.mean for trial in one.trials)


def test_results_are_learned_from(tmp_path, monkeypatch):
    """Trials after the first round, which is drawn at random, are nearer to the best in the mean."""
    found, _ = searched(monkeypatch, tmp_path / "out", build({"trials": 40, "seeds": 1, "lr": RATES}))
    for one in found:
        means = [trial.mean for trial in one.trials]
        assert sum(means[24:]) / 16 > sum(means[1:8]) / 7 + 0.03


def test_the_network_that_is_judged_is_that_of_the_table(tmp_path, monkeypatch):
    found, _ = searched(monkeypatch, tmp_path / "out", build({"trials": 2, "seeds": 3, "lr": RATES}))
    for trial in found[0].trials:
        height = peak(SimpleNamespace(lr=trial.values["lr"], smoothing=0))
        scores = [height + 0.001 * (seed % 7) for seed in (1000, 1001, 1002)]
        assert trial.scores == pytest.approx(scores)
        assert trial.mean == pytest.approx(sum(scores) / 3)


def test_every_arm_has_the_same_budget(tmp_path, monkeypatch):
    """Also the one that has less to tune: as many trials, each on the same seeds."""
    about = build({"trials": 11, "seeds": 3, "first_seed": 50, "lr": RATES, "teacher_lr": RATES})
    found, _ = searched(monkeypatch, tmp_path / "out", about)
    assert [(one.arm, len(one.trials)) for one in found] == [("none", 11), ("exact", 11)]
    assert [(line["arm"], line["number"]) for line in lines_of(tmp_path / "out")] == [
        *(("none", number) for number in range(11)),
        *(("exact", number) for number in range(11)),
    ]
    runs = runs_of(tmp_path / "out")
    for name in ("none", "exact"):
        for number in range(11):
            assert sorted(run["seed"] for run in runs if run["arm"] == f"{name}#{number}") == [50, 51, 52]
    assert len(runs) == 2 * 11 * 3


def test_what_an_arm_sets_itself_is_not_tuned_in_it(tmp_path, monkeypatch):
    found, _ = searched(monkeypatch, tmp_path / "out", build())
    for run in runs_of(tmp_path / "out"):
        if run["arm"].startswith("none#"):
            assert (run["config"]["grad"], run["config"]["teacher_lr"]) == ("none", 0.5)
    assert [set(one.best.values) for one in found] == [{"lr"}, {"lr", "teacher_lr"}]
    assert len({trial.values["teacher_lr"] for trial in found[1].trials}) == 16


def test_no_run_has_a_seed_of_the_study(tmp_path, monkeypatch):
    about = build()
    searched(monkeypatch, tmp_path / "out", about)
    assert {run["seed"] for run in runs_of(tmp_path / "out")} == {1000, 1001, 1002, 1003}
    assert tuple(about.seeds) == (0, 1, 2, 3)


def test_arms_that_tune_the_same_start_the_same(tmp_path, monkeypatch):
    found, _ = searched(monkeypatch, tmp_path / "out", build({"lr": RATES}))
    assert [trial.values for trial in found[0].trials[:8]] == [trial.values for trial in found[1].trials[:8]]


def test_a_round_trains_at_once(tmp_path, monkeypatch):
    """All arms and seeds of up to eight trials are one sweep."""
    fake = Fake()
    searched(monkeypatch, tmp_path / "out", build({"trials": 19, "seeds": 2, "lr": RATES}), fake)
    assert fake.rounds == [2 * 8 * 2, 2 * 8 * 2, 2 * 3 * 2]


# ---------------------------------------------------------------- values


def test_the_first_trial_is_the_study_as_it_is(tmp_path, monkeypatch):
    """Digit by digit, and so no search ends below it."""
    common = {**COMMON, "lr": 0.0312345, "uda_weight": 2.0}
    space = {"trials": 3, "lr": RATES, "uda_weight": [1.0, 2.0]}
    found, _ = searched(monkeypatch, tmp_path / "out", build(space, common=common))
    for one in found:
        assert one.trials[0].values == {"lr": 0.0312345, "uda_weight": 2.0}
        assert one.optuna.trials[0].params == one.trials[0].values  # what is learned from is what was tried
        assert one.before == one.trials[0]
        assert one.best.mean >= one.before.mean


def test_values_of_the_study_that_may_not_be_tried(tmp_path, monkeypatch):
    """The others are those of the first trial all the same, which is no longer what was before."""
    common = {**COMMON, "lr": 2.0, "uda_weight": 2.0}
    space = {"trials": 2, "lr": RATES, "uda_weight": [1.0, 2.0]}
    found, (path,) = searched(monkeypatch, tmp_path / "out", build(space, common=common))
    for one in found:
        assert one.trials[0].values["uda_weight"] == 2.0
        assert 0.001 <= one.trials[0].values["lr"] <= 1
        assert one.before is None
    assert "# none: – → " in path.read_text()


def test_values_have_three_digits_when_they_are_trained(tmp_path, monkeypatch):
    found, _ = searched(
        monkeypatch, tmp_path / "out", build({"trials": 10, "lr": RATES, "feedback_weight": [0.123456]})
    )
    for one in found:
        for trial in one.trials:
            assert trial.values["lr"] == float(f"{trial.values['lr']:.3g}")
            assert trial.values["feedback_weight"] == 0.123456
    tried = {(one.arm, trial.number): trial.values for one in found for trial in one.trials}
    for run in runs_of(tmp_path / "out"):
        name, _, number = run["arm"].partition("#")
        assert tried[name, int(number)] == {key: run["config"][key] for key in ("lr", "feedback_weight")}


def test_rounding_does_not_leave_the_range(tmp_path, monkeypatch):
    found, _ = searched(monkeypatch, tmp_path / "out", build({"lr": {"low": 0.100049, "high": 0.100051}}))
    values = {trial.values["lr"] for one in found for trial in one.trials}
    assert values <= {0.100049, 0.100051}


@pytest.mark.parametrize(("log", "below"), [({}, 0.5), ({"log": True}, 0.5), ({"log": False}, 0.03)])
def test_ranges_are_uniform_in_logarithms_unless_they_say_otherwise(tmp_path, monkeypatch, log, below):
    """Of 63 draws a share like the measure of what is below the geometric mean, to three standard deviations."""
    monkeypatch.setattr(search, "ROUND", 64)
    space = {"trials": 64, "seeds": 1, "lr": {"low": 0.001, "high": 1.0, **log}}
    found, _ = searched(monkeypatch, tmp_path / "out", build(space))
    share = sum(trial.values["lr"] < 0.0316 for trial in found[0].trials[1:]) / 63
    assert abs(share - below) < 3 * math.sqrt(below * (1 - below) / 63)


def test_whole_numbers_and_texts(tmp_path, monkeypatch):
    space = {"trials": 24, "seeds": 1, "batch": {"low": 3, "high": 6}, "model": ["mlp:width=4", "mlp:width=5"]}
    found, (path,) = searched(monkeypatch, tmp_path / "out", build(space))
    for one in found:
        assert {trial.values["batch"] for trial in one.trials} == {3, 4, 5, 6}
        assert all(type(trial.values["batch"]) is int for trial in one.trials)
        assert {trial.values["model"] for trial in one.trials} == {"mlp:width=4", "mlp:width=5"}
    assert specification.read(path).arms["exact"] == found[1].best.values


def test_of_equals_the_first_is_chosen(tmp_path, monkeypatch):
    found, _ = searched(monkeypatch, tmp_path / "out", build(), Fake(flat))
    assert [one.best.number for one in found] == [0, 0]


def test_the_same_configuration_is_trained_once(tmp_path, monkeypatch):
    """But it is as many trials as it was asked for."""
    fake = Fake()
    space = {"trials": 20, "seeds": 2, "smoothing": [0.0, 0.1, 0.2]}
    found, _ = searched(monkeypatch, tmp_path / "out", build(space), fake)
    assert [len(one.trials) for one in found] == [20, 20]
    assert len(fake.trained) == 2 * 2 * 3
    for one in found:
        for trial in one.trials:
            assert trial.mean == pytest.approx(peak(SimpleNamespace(lr=0.1, **trial.values)) + 0.003)
        assert one.best.values == {"smoothing": 0.0}


def test_an_arm_with_nothing_to_tune(tmp_path, monkeypatch):
    found, (path,) = searched(monkeypatch, tmp_path / "out", build({"teacher_lr": RATES, "trials": 3}))
    assert [trial.values for trial in found[0].trials] == [{}, {}, {}]
    assert specification.read(path).arms["none"] == {"grad": "none", "teacher_lr": 0.5}


# ---------------------------------------------------------------- again


def test_the_same_study_gives_the_same(tmp_path, monkeypatch):
    for name in ("one", "two"):
        searched(monkeypatch, tmp_path / name, build())
    for file in ("trials.jsonl", "tuned.toml"):
        assert (tmp_path / "one" / file).read_text() == (tmp_path / "two" / file).read_text()


def test_other_seeds_give_other_trials(tmp_path, monkeypatch):
    one, _ = searched(monkeypatch, tmp_path / "one", build({"lr": RATES}))
    two, _ = searched(monkeypatch, tmp_path / "two", build({"lr": RATES, "first_seed": 2000}))
    assert one[0].trials[1].values != two[0].trials[1].values


@pytest.mark.parametrize("stop", [1, 30, 127])
def test_a_search_that_was_stopped_goes_on(tmp_path, monkeypatch, stop):
    """It ends as one that was not, and trains what it lacks."""
    searched(monkeypatch, tmp_path / "whole", build())
    first, second = Fake(stop=stop), Fake()
    with pytest.raises(KeyboardInterrupt):
        searched(monkeypatch, tmp_path / "out", build(), first)
    searched(monkeypatch, tmp_path / "out", build(), second)
    assert (tmp_path / "out" / "trials.jsonl").read_text() == (tmp_path / "whole" / "trials.jsonl").read_text()
    assert (len(first.trained), len(second.trained)) == (stop, 2 * 16 * 4 - stop)


def test_a_search_that_is_finished_trains_nothing(tmp_path, monkeypatch):
    searched(monkeypatch, tmp_path / "out", build())
    before = (tmp_path / "out" / "tuned.toml").read_text()
    again = Fake()
    searched(monkeypatch, tmp_path / "out", build(), again)
    assert again.trained == []
    assert (tmp_path / "out" / "tuned.toml").read_text() == before


def test_the_folder_of_another_search(tmp_path, monkeypatch):
    searched(monkeypatch, tmp_path / "out", build())
    with pytest.raises(InputError, match="holds another study"):
        searched(monkeypatch, tmp_path / "out", build({"trials": 17, "lr": RATES}))


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


# ---------------------------------------------------------------- the command


REAL = """
seeds = 2
[common]
method = "mpl"
guide = "none"
labels = 10
steps = 3
finetune_steps = 2
batch = 16
model = "mlp:width=8,depth=1"
device = "cpu"
[over]
labels = [10, 20]
[tune]
trials = 2
seeds = 2
lr = { low = 0.01, high = 0.3 }
[arms.none]
grad = "none"
[arms.exact]
"""


def test_the_command(tmp_path):
    """A search that trains; the study that it writes is one for `metapl ablate`."""
    path, out = tmp_path / "my study.toml", tmp_path / "my out"
    path.write_text(REAL)
    outcome = invoke("tune", path, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    lines = lines_of(out)
    assert [(line["setting"]["labels"], line["arm"], line["number"]) for line in lines] == [
        (labels, arm, number) for labels in (10, 20) for arm in ("none", "exact") for number in (0, 1)
    ]
    runs = {(run["setting"]["labels"], run["arm"], run["seed"]): run for run in runs_of(out)}
    for line in lines:
        mine = [runs[line["setting"]["labels"], f"{line['arm']}#{line['number']}", seed] for seed in (1000, 1001)]
        assert line["scores"] == [run["validation"]["finetuned"]["top1"] for run in mine]
        assert 0 <= line["mean"] <= 1
    for labels in (10, 20):
        assert f"study      {out / f'tuned-labels={labels}.toml'}" in outcome.out
        command = f"metapl ablate '{out / f'tuned-labels={labels}.toml'}' --out '{out / f'tuned-labels={labels}'}'"
        assert command in outcome.out
        for arm in ("none", "exact"):
            both = [line for line in lines if (line["setting"]["labels"], line["arm"]) == (labels, arm)]
            best = max(both, key=lambda line: line["mean"])
            cells = [f"labels={labels}", arm, f"lr={best['values']['lr']}", str(best["number"])]
            cells += [f"{100 * both[0]['mean']:.2f} → {100 * best['mean']:.2f}"]
            assert any(
                [cell.strip() for cell in row.strip("│").split("│")] == cells for row in outcome.out.splitlines()
            )


def test_the_bar_counts_all_runs(tmp_path, monkeypatch):
    """Of all arms and rounds, also those that are done."""
    monkeypatch.setattr(execution, "run", Fake())
    path = tmp_path / "study.toml"
    path.write_text(specification.dump(build({"trials": 12, "seeds": 2, "lr": RATES})))
    outcome = invoke("tune", path, "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    assert "48 runs of 2 arms" in outcome.out
    assert "48/48" in outcome.out


WRONG = [
    ("tune", "Missing"),
    ("tune study.toml", "--out"),
    ("tune nowhere.toml --out out", "nowhere.toml"),
    ("tune study.toml --out out --together 0", "--together 0"),
    ("tune empty.toml --out out", "nothing to tune"),
    ("tune study.toml --out there", "--out there exists"),
]


@pytest.mark.parametrize(("args", "word"), WRONG, ids=[args for args, _ in WRONG])
def test_bad_input_on_the_command_line(tmp_path, monkeypatch, args, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(specification.dump(build({"lr": RATES})))
    (tmp_path / "empty.toml").write_text(specification.dump(build({})))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("precious")
    monkeypatch.setattr(execution, "run", None)
    assert_one_line(invoke(*args.split()), word)
    assert {path.name for path in tmp_path.iterdir()} == {"study.toml", "empty.toml", "there"}
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]
