"""Steps that take far longer than the others are told of, by a clock that the test moves."""

import logging
from itertools import repeat

import pytest
from clock import Clock

from metapl.training import pace
from metapl.training.loop import Reported, Stepped
from metapl.training.phases import Began

QUICK = (0.125,) * 20


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(pace, "time", found)
    return found


@pytest.fixture
def said(clock, caplog):
    """`said(seconds, ..., busy=0)`: the warnings about phases of steps that take so long.

    What is done with the event of the 15th step of a phase takes `busy` seconds.
    """

    def watched(*phases, busy=0.0):
        def events():
            for place, seconds in enumerate(phases):
                yield None, Began(f"phase{place}", {})
                for step, one in enumerate(seconds, 1):
                    clock.go(one)
                    yield None, Stepped(f"phase{place}", step, len(seconds), None)

        for _, event in pace.watched(events()):
            clock.go(busy if isinstance(event, Stepped) and event.step == 15 else 0.0)
        return caplog.messages

    with caplog.at_level(logging.WARNING, "metapl"):
        logging.getLogger("metapl").addHandler(caplog.handler)
        yield watched
        logging.getLogger("metapl").removeHandler(caplog.handler)


def test_what_is_said(said):
    (line,) = dict.fromkeys(said((*QUICK, 312.0)))
    assert line == (
        "step 21 of phase0 took 312 s, where 0.125 s is usual: was the disk, the machine or the network held up?"
    )


@pytest.mark.parametrize(
    ("before", "longest"),
    [
        (QUICK, 60.0),  # the fiftyfold would be 6 seconds
        ((4.0,) * 20, 200.0),
        ((*QUICK, *repeat(50.0, 9)), 60.0),  # the fiftyfold of the mean would be 13 minutes
        (QUICK[:10], 60.0),
    ],
)
def test_how_long_a_step_may_take(said, before, longest):
    assert not said((*before, longest))
    assert said((*before, longest + 0.25))


def test_the_first_steps_are_no_measure(said):
    assert not said((*QUICK[:9], 1000.0))


def test_a_median_of_the_last_steps(said):
    assert not said((*repeat(0.125, 200), *repeat(10.0, 101), 400.0))
    assert said((*repeat(10.0, 200), *repeat(0.125, 101), 400.0))


def test_each_phase_has_steps_of_its_own(said):
    assert not said(QUICK, (100.0,) * 12)


def test_a_run_that_stays_slow_says_so_once(said):
    assert len(dict.fromkeys(said((*QUICK, *repeat(70.0, 300))))) == 1


def test_what_is_done_with_the_events_does_not_count(said):
    assert not said(QUICK, busy=1000.0)


def test_a_report_does_not_count(clock, said, caplog):
    events = [
        *((None, Stepped("one", step, 20, None)) for step in range(20)),
        (None, Reported("one", 20, 20, 1, {}, {})),
    ]

    def slow():
        for event in events:
            clock.go(1000.0 if isinstance(event[1], Reported) else 0.125)
            yield event

    assert [*pace.watched(slow())] == events
    assert not caplog.messages
