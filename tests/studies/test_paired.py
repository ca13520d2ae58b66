"""Statistics of paired runs: Student's own data as R reports it, scipy's tests, binomial sums by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from metapl.studies import paired

# Student, The probable error of a mean, Biometrika 1908: hours of sleep gained by two drugs, one patient a pair.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def sign_test(wins, losses):
    """Twice the smaller tail of fair coins."""
    count = wins + losses
    tail = sum(math.comb(count, k) for k in range(min(wins, losses) + 1)) / 2**count
    return min(1.0, 2.0 * tail)


def test_students_sleep_data():
    """R: t.test(paired = TRUE) gives 1.58, [0.7001142, 2.4598858], p = 0.002833; nine signs against none: 2⁻⁸."""
    found = paired.compare(SECOND, FIRST)
    assert found.mean == pytest.approx(1.58)
    assert found.mean - found.interval == pytest.approx(0.7001142, abs=5e-8)
    assert found.mean + found.interval == pytest.approx(2.4598858, abs=5e-8)
    assert found.t_p == pytest.approx(0.002833, abs=5e-7)
    assert (found.wins, found.losses) == (9, 0)
    assert found.sign_p == pytest.approx(2**-8)


def test_the_other_way_round():
    one, other = paired.compare(SECOND, FIRST), paired.compare(FIRST, SECOND)
    assert (other.wins, other.losses, other.mean) == (0, 9, -one.mean)
    assert other[1] == pytest.approx(one[1])
    assert other[4:] == pytest.approx(one[4:])


# In ten-thousandths, so that ties occur and no gap is lost to rounding.
PAIRS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=2, max_size=40)


@given(pairs=PAIRS)
@settings(deadline=None, derandomize=True, database=None, max_examples=60)
def test_as_scipy_has_it(pairs):
    values, reference = ([one / 10_000 for one in column] for column in zip(*pairs, strict=True))
    gaps = [a - b for a, b in pairs]
    found = paired.compare(values, reference)
    assert found.mean == pytest.approx(sum(gaps) / len(gaps) / 10_000, abs=1e-12)
    assert (found.wins, found.losses) == (sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps))
    assert found.sign_p == pytest.approx(sign_test(found.wins, found.losses))
    if len(set(gaps)) > 1:
        truth = stats.ttest_rel(values, reference)
        low, high = truth.confidence_interval(0.95)
        assert found.t_p == pytest.approx(truth.pvalue, rel=1e-6, abs=1e-300)
        assert found.interval == pytest.approx((high - low) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("wins", "losses", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (1, 7, 18 / 256), (4, 4, 1.0), (32, 0, 2**-31)]
)
def test_the_sign_test_leaves_ties_out(wins, losses, p):
    values = [1.0] * wins + [-1.0] * losses + [0.0] * 3
    found = paired.compare(values, [0.0] * len(values))
    assert (found.wins, found.losses) == (wins, losses)
    assert found.sign_p == pytest.approx(p)


def test_nothing_differs():
    assert paired.compare([0.5, 0.7, 0.9], [0.5, 0.7, 0.9]) == (0.0, 0.0, 0, 0, 1.0, 1.0)


def test_all_differ_by_the_same():
    """Exactly representable; scipy divides by zero here."""
    assert paired.compare([0.75, 1.0, 1.5], [0.5, 0.75, 1.25]) == (0.25, 0.0, 3, 0, 0.25, 0.0)
    assert paired.compare([0.5, 0.75], [0.75, 1.0]) == (-0.25, 0.0, 0, 2, 0.5, 0.0)


def test_a_single_pair_has_no_interval():
    found = paired.compare([0.5], [0.25])
    assert found[:1] + found[2:5] == (0.25, 1, 0, 1.0)
    assert math.isnan(found.interval)
    assert math.isnan(found.t_p)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_shows(bad):
    """Rather than an error after hours of training: a pair without a value is neither won nor lost."""
    found = paired.compare([bad, 0.5, 0.25], [bad, 0.25, 0.5])
    assert (found.wins, found.losses, found.sign_p) == (1, 1, 1.0)
    assert all(math.isnan(value) for value in (found.mean, found.interval, found.t_p))


@pytest.mark.parametrize(("values", "reference"), [([], []), ([1.0], []), ([1.0, 2.0], [1.0])])
def test_pairs_are_needed(values, reference):
    with pytest.raises(ValueError, match=r"nothing to compare|shorter|longer"):
        paired.compare(values, reference)


@pytest.mark.parametrize("values", [[0.1, 0.4], [0.3, 0.31, 0.35, 0.2], SECOND])
def test_the_interval_of_a_mean(values):
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert paired.half_interval(values) == pytest.approx((high - low) / 2)


def test_one_value_has_no_interval():
    assert math.isnan(paired.half_interval([0.3]))
    assert paired.half_interval([0.5, 0.5]) == 0.0
