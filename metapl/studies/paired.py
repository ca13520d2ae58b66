"""Statistics of paired runs: the same seeds under two treatments.

Examples:
    >>> from metapl.studies import paired
    >>> found = paired.compare([0.71, 0.74, 0.80], [0.70, 0.72, 0.77])
    >>> round(found.mean, 3), found.wins, found.losses
    (0.02, 3, 0)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats


class Difference(NamedTuple):
    """How one treatment does against another on the same seeds."""

    mean: float
    """Of the differences."""
    interval: float
    """Half of its 95 % confidence interval, by Student's t; NaN with a single pair."""
    wins: int
    """Seeds on which it does better."""
    losses: int
    sign_p: float
    """Two-sided p-value of the sign test, without ties; 1 where nothing differs."""
    t_p: float
    """Two-sided p-value of the paired t-test; NaN with a single pair, 1 where nothing differs."""


def half_interval(values: Sequence[float]) -> float:
    """Half of the 95 % confidence interval of a mean: t₀.₉₇₅(n − 1) s / √n; NaN with a single value."""
    count = len(values)
    return float(stats.t.ppf(0.975, count - 1)) * deviation(values) / math.sqrt(count) if count > 1 else math.nan


def deviation(values: Sequence[float]) -> float:
    """The sample standard deviation; 0 of a single value, NaN if one is not finite."""
    # Of what is not finite, the statistics of Python 3.11 raise an AttributeError.
    if not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values) if len(values) > 1 else 0.0


def compare(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """Compare values with those of a reference, pair by pair.

    Raises:
        ValueError: none, or not as many of each.
    """
    gaps = [a - b for a, b in zip(values, reference, strict=True)]
    if not gaps:
        raise ValueError("there is nothing to compare")
    wins, losses = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    sign_p = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return Difference(statistics.fmean(gaps), half_interval(gaps), wins, losses, sign_p, _t_test(gaps))


def _t_test(gaps: Sequence[float]) -> float:
    if len(gaps) < 2:
        return math.nan
    error = deviation(gaps) / math.sqrt(len(gaps))
    if not error:
        return 0.0 if gaps[0] else 1.0
    return float(2 * stats.t.sf(abs(statistics.fmean(gaps)) / error, len(gaps) - 1))
