"""The search of `metapl tune`, with a closed form in place of training: what is tried and found, how it goes on."""

import math
from types import SimpleNamespace

import pytest
from searching import BEST, COMMON, RATES, Fake, build, lines_of, peak, runs_of, searched

from metapl.registry.errors import InputError
from metapl.studies import search, specification

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def flat(config):
    """The same for all."""
    return 0.5


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
