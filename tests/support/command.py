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
