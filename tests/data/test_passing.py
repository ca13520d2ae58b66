"""Batches with files that cannot be read any more give way to others."""

import pytest

from metapl.data.loader import ATTEMPTS, LATER, passing
from metapl.registry.errors import InputError


def reading(*bad):
    """Batches that are their own steps; some cannot be read."""

    def at(step):
        if step in bad:
            raise InputError(f"{step % LATER}.png: no image")
        return step

    return passing(at)


def test_another_batch_takes_the_place_and_the_file_is_named_once(caplog):
    at = reading(3, 5, 5 + LATER, 3 + 2 * LATER)
    assert [at(step) for step in (2, 3, 4, 5, 3, 5)] == [2, 3 + LATER, 4, 5 + 2 * LATER, 3 + LATER, 5 + 2 * LATER]
    assert caplog.messages == [f"{step}.png: no image; batches with it give way to others" for step in (3, 5)]


def test_where_nothing_can_be_read_any_more_that_is_an_error():
    assert reading(*(7 + attempt * LATER for attempt in range(ATTEMPTS - 1)))(7) == 7 + (ATTEMPTS - 1) * LATER
    with pytest.raises(InputError, match=r"^10 batches in a row cannot be read, the last one since 7\.png: no image$"):
        reading(*(7 + attempt * LATER for attempt in range(ATTEMPTS)))(7)
