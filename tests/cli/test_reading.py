"""How far a long reading is, as a terminal and a log file show it."""

import io

import pytest

from metapl.cli import reading
from metapl.cli.reading import Reading


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(reading.time, "monotonic", lambda: now[0])
    return now


def hear(out, clock, seconds, total=40):
    """One part after another, each so many seconds after the one before."""
    heard = Reading(out)
    for done in range(1, total + 1):
        heard("reading images", done, total)
        clock[0] += seconds
    return out.getvalue()


def test_a_terminal_shows_one_line_that_moves_and_is_gone_at_the_end(clock):
    shown = hear(Terminal(), clock, 0.25).split("\r")
    assert shown[1] == "reading images: 3 of 40, 6 s left\x1b[K"
    assert shown[2].startswith("reading images: 5 of 40")
    assert shown[-1] == "\x1b[K"


def test_what_is_quick_is_not_shown(clock):
    assert hear(Terminal(), clock, 0.01) == ""
    assert hear(io.StringIO(), clock, 0.4) == ""


def test_a_log_file_has_a_line_now_and_then(clock):
    lines = hear(io.StringIO(), clock, 2.0).splitlines()
    assert lines[0] == "metapl: reading images: 11 of 40, 53 s left"
    assert len(lines) == 3


def test_nobody_need_be_there(clock):
    class Gone(io.StringIO):
        def write(self, _):
            raise OSError("gone")

    hear(Gone(), clock, 30.0)
