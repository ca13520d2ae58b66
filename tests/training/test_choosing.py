"""Which method is trained by `--method auto`: what the candidates are asked for, and which one is taken."""

import pytest
import torch

from metapl.training import choosing, phases
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


@pytest.mark.slow
def test_experiments_are_chosen_for_each_alone():
    configs = [{"seed": 3}, {"seed": 5}]
    both = choosing.choose([prepared(**one) for one in configs])
    assert both == [choosing.choose([prepared(**one)])[0] for one in configs]
    assert [one.config.seed for one in both] == [3, 5]
    assert both[0].how == "3 folds of 10 labelled examples"


def hits(text):
    return torch.tensor([letter == "1" for letter in text])


def of(right, wrong, both, neither):
    """Answers of the preferred candidate and of another one: who alone is right, by the number of examples."""
    return hits("1" * right + "0" * wrong + "1" * both + "0" * neither), hits(
        "0" * right + "1" * wrong + "1" * both + "0" * neither
    )


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        (of(0, 0, 6, 4), "uda"),
        (of(3, 8, 25, 4), "uda"),  # 5 of 40 more: what chance often gives
        (of(2, 11, 25, 2), "supervised"),  # 9 of 40 more
        (of(15, 20, 150, 15), "supervised"),  # 5 of 200 more: a little, but the prior says little against 200 answers
        (of(15, 17, 150, 18), "uda"),
        (of(20, 10, 10, 10), "uda"),
    ],
)
def test_another_candidate_is_taken_where_it_is_expected_to_be_better(answers, name):
    config = prepared().config
    candidates = {"supervised": TrainConfig(method="supervised"), "uda": config}
    uda, other = answers
    found = choosing._best(config, {"supervised": other, "uda": uda}, candidates, "so")
    assert (found.name, found.config.method, found.hurts) == (name, name, name == "supervised")
    assert found.scores[0] == ("uda", int(uda.sum()), len(uda))
    assert found.config.seed == config.seed


def test_of_several_the_one_with_the_highest_expectation_is_taken():
    config = prepared().config
    uda = hits("1" * 100 + "0" * 100)
    more, surer = hits("0" * 30 + "1" * 130 + "0" * 40), hits("0" + "1" * 129 + "0" * 70)  # +30 of 90, +29 of 31
    assert more.sum() > surer.sum()
    names = {"logistic": more, "uda": uda, "supervised": surer}
    assert choosing._best(config, names, dict.fromkeys(names, config), "so").name == "supervised"


@pytest.mark.parametrize("answers", [of(0, 0, 6, 4), of(3, 8, 25, 4), of(15, 20, 150, 15), of(20, 10, 10, 10)])
def test_a_gain_is_the_mean_of_a_posterior(answers):
    uda, other = answers
    at = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    count = len(uda) + 2
    won, lost = (int((one & ~two).sum()) + 1 for one, two in ((other, uda), (uda, other)))
    found, spread = (won - lost) / count, ((won + lost) / count - ((won - lost) / count) ** 2) / count
    density = torch.exp(-((at + 0.04) ** 2) / (2 * 0.04**2) - (at - found) ** 2 / (2 * spread))
    assert choosing.gain(uda, other) == pytest.approx(float((density * at).sum() / density.sum()), abs=1e-6)
