"""The command line in this process."""

import contextlib
import io
import sys
from typing import Any, NamedTuple
from unittest import mock

import pytest

from metapl.cli.main import main


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


def invoke(*args: Any) -> Outcome:
    """`metapl ARGS`. Any other exception than the exit is a traceback, and fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["metapl", *map(str, args)]),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    return Outcome(stopped.value.code, out.getvalue(), err.getvalue())


def assert_one_line(outcome: Outcome, word: str) -> None:
    """The command ended with exit code 2 and one line that holds the word, and printed nothing else."""
    assert outcome.code == 2
    assert outcome.err.startswith("metapl: ")
    assert outcome.err.endswith("\n")
    assert (outcome.err.count("\n"), outcome.out) == (1, "")
    assert word in outcome.err
