"""How the classical methods choose: what they may look at, and that they find what is there to be found."""

import pytest
import torch
from asserts import assert_close_tree

from metapl.core import rng
from metapl.data.form import Form
from metapl.methods.classical import choice, logistic, self_training, spreading
from metapl.methods.seen import Seen

FORM = Form("table", (3,), ("a", "b"), {"columns": []})


def seen(x, y, labelled, validation=0, form=FORM):
    return Seen(x, y[: labelled + validation], labelled, 0, form, rng.key(3))


def of_classes(*counts):
    """Labelled examples with so many of each class, and nothing else."""
    y = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    return seen(torch.zeros(len(y), 2), y, len(y))


def test_folds_share_out_the_labelled_examples():
    given = of_classes(10, 15)
    rounds, name = choice.trial(given)
    assert (len(rounds), name) == (5, "chosen by 5 folds of 25 labelled examples")
    assert torch.equal(torch.cat([one.asked for one in rounds]).sort().values, torch.arange(25))
    for one in rounds:
        assert torch.equal(torch.cat(one).sort().values, torch.arange(25))
        assert given.y[one.asked].bincount().tolist() == [2, 3]


def test_a_class_with_one_label_is_always_shown():
    rounds, name = choice.trial(of_classes(3, 1, 3))
    assert name == "chosen by 3 folds of 7 labelled examples"
    assert all(3 in one.shown for one in rounds)
    assert sorted(torch.cat([one.asked for one in rounds]).tolist()) == [0, 1, 2, 4, 5, 6]


def test_folds_are_of_one_size_and_what_is_left_over_is_shown():
    rounds, _ = choice.trial(of_classes(3, 1, 2))
    assert [len(one.asked) for one in rounds] == [1, 1, 1]
    asked = torch.cat([one.asked for one in rounds])
    assert len(asked.unique()) == 3
    assert 3 not in asked
    for one in rounds:
        assert torch.equal(torch.cat(one).sort().values, torch.arange(6))


def test_one_label_a_class_leaves_nothing_to_ask():
    assert choice.trial(of_classes(1, 1, 1)) == ([], "not chosen, since one label a class cannot be cross-validated")


def test_the_validation_part_is_asked_for_where_there_is_one():
    x, y = torch.zeros(30, 2), torch.arange(30) % 2
    ((shown, asked),), name = choice.trial(seen(x, y, 4, 6))
    assert (shown.tolist(), asked.tolist()) == ([0, 1, 2, 3], [4, 5, 6, 7, 8, 9])
    assert name == "chosen on 6 validation examples"


def test_no_more_examples_take_part_than_are_needed(monkeypatch):
    monkeypatch.setattr(choice, "MOST", 8)
    rounds, name = choice.trial(of_classes(20, 20))
    assert name.endswith("of 8 labelled examples")
    assert [len(torch.cat(one)) for one in rounds] == [8] * 5
    assert len(torch.cat([torch.cat(one) for one in rounds]).unique()) == 8


@pytest.mark.parametrize(
    ("hits", "winner"),
    [
        (["111110000", "111110000"], 0),  # of equal ones the first
        (["111110000", "000001111"], 0),
        (["110000000", "111111100", "111111110"], 2),
        (["000000000", "111110000", "111110000"], 1),
    ],
)
def test_the_most_hits_win(hits, winner):
    assert choice.best([torch.tensor([letter == "1" for letter in one]) for one in hits]) == winner


@pytest.mark.parametrize(("more", "winner"), [(0, 0), (3, 0), (4, 1)])
def test_another_one_must_be_so_many_hits_ahead_of_the_first(more, winner):
    found = [torch.arange(20) < count for count in (10, 10 + more, 9 + more)]
    assert choice.best(found, ahead=3) == winner


def drowned(examples=120):
    """The class is in a small number beside large ones of noise: only a scale for each feature shows it."""
    y = torch.arange(examples) % 2
    noise = rng.normal(rng.key(1), (examples, 3))
    return torch.stack([2.0 * y - 1 + 0.1 * noise[:, 0], 300 * noise[:, 1], 300 * noise[:, 2]], 1), y


@pytest.mark.parametrize("fit", [logistic.fit, self_training.fit, spreading.fit])
@pytest.mark.parametrize(("labelled", "validation"), [(20, 0), (6, 40)])
def test_the_scaling_that_shows_the_classes_is_found(fit, labelled, validation):
    x, y = drowned()
    found = fit(seen(x, y, labelled, validation))
    assert found.chosen.startswith("standardised, ")
    assert found.chosen.endswith("validation examples" if validation else "5 folds of 20 labelled examples")
    with_one_label = fit(seen(x, y, 2))
    assert with_one_label.chosen.startswith("as stored, ")


def test_a_boundary_that_is_a_line_is_left_to_the_regression():
    """Few examples in many dimensions, where votes are worse than a plane."""
    x = rng.normal(rng.key(1), (400, 12))
    y = (x.sum(1) > 0).long()
    form = Form("table", (12,), ("a", "b"), {"columns": []})
    assert "then logistic regression" in spreading.fit(seen(x, y, 60, 200, form)).chosen


def test_a_ring_is_left_to_the_votes():
    angle = torch.linspace(0, 6.28, 200)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    x, y = (
        torch.cat([circle, 0.3 * circle])[torch.arange(400) % 2 * 200 + torch.arange(400) // 2],
        torch.arange(400) % 2,
    )
    found = spreading.fit(seen(x, y, 20))
    assert "then votes" in found.chosen
    assert "as stored" in found.chosen


@pytest.mark.parametrize("fit", [logistic.fit, self_training.fit, spreading.fit])
def test_the_validation_part_is_not_learnt_from(fit, monkeypatch):
    """With the settings given, a run with a validation part fits what one without these examples does."""
    x, y = drowned()
    monkeypatch.setattr(logistic, "choose", lambda _: logistic.Chosen("as stored", 1.0, ""))
    settings = spreading.Settings("as stored", 5, 0.5), False, choice.Trial([], "")
    monkeypatch.setattr(spreading, "choose", lambda _: settings)
    assert_same(fit(seen(x, y, 20, 30)), fit(seen(torch.cat([x[:20], x[50:]]), y, 20)))


@pytest.mark.parametrize("fit", [logistic.fit, self_training.fit, spreading.fit])
def test_the_same_examples_give_the_same_network(fit):
    x, y = drowned()
    one, two = (fit(seen(x, y, 20)) for _ in range(2))
    assert_same(one, two)


def assert_same(one, two):
    assert one.chosen == two.chosen
    assert one.networks.keys() == two.networks.keys()
    for name, network in one.networks.items():
        assert_close_tree(tuple(network), tuple(two.networks[name]), rtol=0)
