"""Which cases of a test are quick enough to run each time."""

import pytest


def quick_and_slow(cases, quick):
    """The cases, with the mark `slow` on all but the quick ones. `cases` are values or tuples for `parametrize`."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=() if case in quick else pytest.mark.slow)
        for case in cases
    ]
