"""The length of the feedback, by rule."""

import math

import pytest
import torch

from metapl.methods import feedback_scale
from metapl.methods.feedback_scale import SIZES, Statistics

NUMBERS = {"feedback": 0.03, "scale": 0.5, "exam": 0.7, "own": 0.6, "classes": 10, "labelled": 4.0}


def told(**changed):
    """What a rule is told, in float64."""
    given = {**NUMBERS, **changed}
    return Statistics(
        **{
            name: value if name in ("classes", "labelled") else torch.tensor(value, dtype=torch.float64)
            for name, value in given.items()
        }
    )


def length(size, **changed):
    """Of the feedback once it has its factor."""
    given = told(**changed)
    return float(size(given) * given.feedback)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (feedback_scale.raw(), 0.03),
        (feedback_scale.cosine(), 0.03 / 0.5),
        (feedback_scale.cosine(power=0.5), 0.03 / 0.5 / 2),
        (feedback_scale.cosine(power=2.0), 0.03 / 0.5 / 16),
        (feedback_scale.exam(power=0.5), 0.03 / 0.5 / 2 * 0.7 / math.log(10)),
        (feedback_scale.exam(), 0.03 / 0.5 * 0.7 / math.log(10)),
        (feedback_scale.exam(chance=0.1), 0.03 / 0.5),
        (feedback_scale.exam(chance=0.5), 0.03 / 0.5 * 1.4 / math.log(10)),
        (feedback_scale.relative(), 0.6),
        (feedback_scale.capped(), 0.03 / 0.5),
        (feedback_scale.capped(ratio=0.05), 0.03),
    ],
)
def test_lengths(size, expected):
    assert length(size) == pytest.approx(expected, rel=1e-12)


def test_a_cap_is_the_teachers_own_unless_it_says_so():
    assert length(feedback_scale.capped(), own=0.04) == pytest.approx(0.04, rel=1e-12)
    assert length(feedback_scale.capped(ratio=0.5), own=0.04) == pytest.approx(0.02, rel=1e-12)


@pytest.mark.parametrize("name", sorted(set(SIZES) - {"raw"}))
def test_all_but_raw_have_no_unit_of_the_students_learning_rate(name):
    """Which multiplies the feedback and the scale alike."""
    small = length(SIZES[name](), feedback=0.03e-6, scale=0.5e-6)
    assert small == pytest.approx(length(SIZES[name]()), rel=1e-12)


@pytest.mark.parametrize("name", SIZES)
def test_no_feedback_stays_none(name):
    """Of a student that does not move, or an exam without gradient: 0 / 0 would be NaN."""
    assert length(SIZES[name](), feedback=0.0, scale=0.0) == 0.0
    assert float(SIZES[name]()(told(feedback=0.0, scale=0.0))) == (1.0 if name == "raw" else 0.0)


@pytest.mark.parametrize("name", ["exam"])
def test_a_solved_exam_says_nothing(name):
    assert length(SIZES[name](), exam=0.0) == 0.0
    assert length(SIZES[name](), exam=1e3) == length(feedback_scale.cosine())


@pytest.mark.parametrize("name", ["relative", "capped"])
def test_a_teacher_that_has_nothing_to_learn_is_told_nothing(name):
    assert length(SIZES[name](), own=0.0) == 0.0


def test_the_number_of_classes_is_that_of_a_guess():
    assert length(feedback_scale.exam(), exam=math.log(2) / 2, classes=2) == pytest.approx(0.03)


def test_few_labels_are_no_reason_to_shout():
    assert length(feedback_scale.cosine(power=1.0), labelled=0.5) == pytest.approx(0.06)


@pytest.mark.parametrize("name", ["cosine", "exam"])
def test_more_labels_never_make_it_longer(name):
    with pytest.raises(ValueError, match=r"power=-0\.5 must not be negative"):
        SIZES[name](power=-0.5)


@pytest.mark.parametrize("share", [0.0, -0.5, -2.0])
@pytest.mark.parametrize(
    "build", [lambda share: feedback_scale.exam(chance=share), lambda share: feedback_scale.capped(ratio=share)]
)
def test_shares_are_positive(build, share):
    with pytest.raises(ValueError, match="must be positive"):
        build(share)
