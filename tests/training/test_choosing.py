"""Which method is trained by `--method auto`: what the candidates are asked for, and which one is taken."""

import pytest
import torch
from asserts import assert_close_tree

from metapl.methods.seen import Fitted
from metapl.training import choosing, phases, seen
from metapl.training.config import TrainConfig
from metapl.training.experiment import assemble, prepare

TINY = {"data": "moons:points=200", "model": "mlp:width=4,depth=1", "labels": 10, "validation": 0, "device": "cpu"}
TINY |= {"steps": 3, "batch": 16}


def prepared(**options):
    return prepare(TrainConfig(**{**TINY, **options}))


def test_folds_leave_what_they_ask_for_out_of_the_unlabelled_examples():
    given = prepared(labels=12)
    found = choosing._splits(given)
    assert len(found) == 3
    labelled, unlabelled = set(given.split.labelled.tolist()), set(given.split.unlabelled.tolist())
    assert labelled < unlabelled
    asked = [set(one.validation.tolist()) for one in found]
    assert [len(one) for one in asked] == [4] * 3
    assert len(set().union(*asked)) == 12
    for one, out in zip(found, asked, strict=True):
        assert set(one.labelled.tolist()) == labelled - out
        assert set(one.unlabelled.tolist()) == unlabelled - out


def test_the_validation_part_is_asked_for_where_there_is_one():
    given = prepared(validation=30)
    assert choosing._splits(given) == [given.split]


def test_one_label_a_class_chooses_nothing():
    given = prepared(labels=2)
    assert choosing.choose([given]) == [
        choosing.Choice(given.config, "uda", "one label a class leaves nothing to compare on")
    ]


def test_a_candidate_that_is_clearly_better_is_chosen():
    """After one step with a small rate a network knows nothing yet, and a regression does."""
    given = prepared(validation=80, labels=20, lr=1e-6, steps=3)
    (found,) = choosing.choose([given])
    assert found.how == "80 validation examples"
    scores = {one.name: one.right for one in found.scores}
    assert found.config.method == found.name in ("logistic", "self-training", "spreading")
    assert scores[found.name] == max(scores.values()) > scores["uda"] + 10
    assert found.scores[0].name == "uda"
    assert {one.asked for one in found.scores} == {80}
    names = {"uda", "uda, uniform alignment", "supervised", "logistic", "self-training", "spreading"}
    assert set(scores) == names
    assert given.config.method == "uda"


def test_the_scores_are_those_of_runs_of_their_own():
    given = prepared(validation=40)
    (found,) = choosing.choose([given], aligned=True)
    config = given.config.__class__(**{**vars(given.config), "steps": 1})
    rows = phases.finish(phases.run(assemble(config, given.data, given.split))).validation
    scores = {one.name: one.right / one.asked for one in found.scores}
    assert set(scores) == set(rows) - {"consensus"}
    for name, share in scores.items():
        assert share == pytest.approx(rows[name]["top1"], abs=1e-6)


@pytest.mark.parametrize("taken", ["uda", "uda, uniform alignment", "spreading"])
def test_what_was_fitted_to_the_same_examples_is_not_fitted_again(monkeypatch, taken):
    given = prepared(validation=40, labels=20)
    best = choosing._best
    monkeypatch.setattr(choosing, "_best", lambda *given: best(*given)._replace(config=given[2][taken]))
    (found,) = choosing.choose([given])
    run = assemble(found.config, given.data, given.split)
    expected = phases.finish(phases.run(run))
    monkeypatch.setattr(seen, "gather", lambda _: pytest.fail("it is fitted again"))
    made = phases.finish(phases.run(run._replace(fitted=found.fitted)))
    assert made.chosen == expected.chosen
    assert_close_tree(made.networks, expected.networks, rtol=0)


def test_each_seed_has_its_own_fits():
    both = choosing.choose([prepared(validation=40, labels=20, seed=seed) for seed in (3, 5)])
    (alone,) = choosing.choose([prepared(validation=40, labels=20, seed=5)])
    for name, one in alone.fitted.items():
        assert_close_tree(both[1].fitted[name].networks, one.networks, rtol=0)
    assert set(alone.fitted) == {"logistic", "self-training", "spreading", "consensus"}


def test_of_some_that_are_there_the_others_are_fitted():
    given = prepared(validation=40, labels=20)
    fit = seen.fitting(given._replace(fitted={"consensus": Fitted({}, "it was there")}))
    assert fit("consensus", lambda _: pytest.fail("it is fitted again")).chosen == "it was there"
    assert fit("logistic", lambda looked: Fitted({}, f"of {looked.labelled}")).chosen == "of 20"


def test_folds_leave_nothing_for_the_run():
    (found,) = choosing.choose([prepared(labels=20)])
    assert found.how.startswith("3 folds")
    assert found.fitted == {}


@pytest.mark.slow
def test_experiments_are_chosen_for_each_alone():
    configs = [{"seed": 3}, {"seed": 5}]
    both = choosing.choose([prepared(**one) for one in configs])
    assert both == [choosing.choose([prepared(**one)])[0] for one in configs]
    assert [one.config.seed for one in both] == [3, 5]
    assert both[0].how == "3 folds of 10 labelled examples"


@pytest.mark.parametrize(
    ("uda", "other", "name"), [(20, 20, "uda"), (20, 28, "uda"), (20, 29, "supervised"), (20, 5, "uda")]
)
def test_another_candidate_must_have_over_eight_more_right_answers(uda, other, name):
    config = prepared().config
    candidates = {"supervised": TrainConfig(method="supervised"), "uda": config}
    answers = {"supervised": torch.arange(40) >= 40 - other, "uda": torch.arange(40) < uda}
    found = choosing._best(config, answers, candidates, "so")
    assert (found.name, found.config.method, found.hurts) == (name, name, name == "supervised")
    assert found.scores == (("uda", uda, 40), ("supervised", other, 40))
    assert found.config.seed == config.seed


def test_eight_is_where_the_prior_and_the_answers_balance():
    """The share of the right ones among the examples on which two candidates differ is above one half from there on."""
    prior = (8, 16)
    for differ in (9, 20, 60):
        for more in range(-differ, differ + 1, 2):
            won = (differ + more) // 2
            expected = (prior[0] + won) / (sum(prior) + differ)
            assert (expected > 0.5) == (more > choosing.AHEAD)
