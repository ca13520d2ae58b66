"""The test part of data that comes without one, against counts by hand."""

from fractions import Fraction

import pytest
import torch
from asserts import assert_pure
from hypothesis import given, settings
from hypothesis import strategies as st

from metapl.core import rng
from metapl.data.sources.held_out import hold_out
from metapl.registry.errors import InputError

quick = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def expected(count, share):
    """The nearest whole number, halves up; exact, as `share` is read as the decimal it is written as."""
    nearest = int(Fraction(str(share)) * count + Fraction(1, 2))
    return min(max(nearest, 1), count - 1)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.sampled_from([0.05, 0.2, 0.25, 0.5, 0.9]))
@quick
def test_every_class_gives_its_share(counts, share):
    if max(counts) < 2:
        return
    y = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    y = y[rng.permutation(rng.key(1), len(y))]
    pool, test = hold_out(y, share, rng.key(0))
    assert y[test].bincount(minlength=len(counts)).tolist() == [expected(count, share) for count in counts]
    assert sorted(pool.tolist() + test.tolist()) == list(range(len(y)))
    for part in (pool, test):
        assert part.dtype == torch.int64
        assert bool((part.diff() > 0).all())


def test_known_counts():
    y = torch.tensor([0] * 10 + [1] * 2 + [2] + [3] * 5 + [4] * 12)
    _, test = hold_out(y, 0.2, rng.key(0))
    assert y[test].bincount(minlength=5).tolist() == [2, 1, 0, 1, 2]


def test_what_nobody_knows_stays_in_the_pool():
    y = torch.tensor([-1] * 50 + [0] * 10 + [1] * 10)
    pool, test = hold_out(y, 0.5, rng.key(0))
    assert y[test].tolist() == [0] * 5 + [1] * 5
    assert (y[pool] == -1).sum() == 50


def test_the_key_draws():
    y = torch.tensor([0, 1] * 50)
    assert_pure(lambda y, key: hold_out(y, 0.2, key), y, rng.key(0))
    drawn = [hold_out(y, 0.2, rng.key(seed))[1] for seed in range(200)]
    assert len({tuple(one.tolist()) for one in drawn}) == 200
    # Each is drawn with probability 1/5; five standard deviations of 200 draws.
    counts = torch.cat(drawn).bincount(minlength=100)
    assert bool(((counts - 40).abs() < 5 * (200 * 0.2 * 0.8) ** 0.5).all())


def test_classes_draw_apart():
    """Not the same places of every class, and a class draws as it would without the others."""
    y = torch.tensor([0, 1] * 50)
    _, test = hold_out(y, 0.2, rng.key(0))
    places = [[place // 2 for place in test.tolist() if place % 2 == label] for label in (0, 1)]
    assert places[0] != places[1]
    _, alone = hold_out(torch.where(y == 1, y, -1), 0.2, rng.key(0))
    assert alone.tolist() == [place for place in test.tolist() if place % 2]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 20.0, float("nan")])
def test_no_share_is_refused(share):
    with pytest.raises(InputError, match=r"^test=\S+ must be a share of each class, .* such as test=0\.2$"):
        hold_out(torch.tensor([0, 0, 1, 1]), share, rng.key(0))


@pytest.mark.parametrize("y", [[0, 1, 2], [-1, -1, -1], []])
def test_nothing_to_hold_out_is_refused(y):
    with pytest.raises(InputError, match=r"^no class has two labelled examples.*: add some, or give a test apart$"):
        hold_out(torch.tensor(y, dtype=torch.int64), 0.2, rng.key(0))
