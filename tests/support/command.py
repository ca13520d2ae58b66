"""The command line in this process."""

import contextlib
import functools
import io
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import typer
from click.testing import Result
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from typer.testing import CliRunner

from metapl.cli.main import main
from metapl.reporting import plots
from metapl.training import checkpoint, pace

_parser = functools.cache(typer.main.get_command)
"""The parser of the command line, which would be built again for every command."""


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


def invoke(*args: Any) -> Outcome:
    """`metapl ARGS`, with the points of a picture in its file: to paint them takes longer than a tiny run."""
    with mock.patch.object(plots, "_save", _points):
        return painting(*args)


def _points(figure: Figure, path: Path) -> None:
    lines = [[(line.get_label(), line.get_xydata().tolist()) for line in axes.lines] for axes in figure.axes]
    checkpoint.write_text(path, json.dumps(lines))
    plt.close(figure)


def painting(*args: Any) -> Outcome:
    """`metapl ARGS`. Any other exception than the exit is a traceback, and fails the test."""
    out, err = io.StringIO(), io.StringIO()
    # A run that is held up says so on standard error: only by the clock of a test, since a machine may be at any time.
    least = math.inf if pace.time is time else pace.LEAST
    with (
        mock.patch.object(pace, "LEAST", least),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(typer.main, "get_command", _parser),
        mock.patch.object(sys, "argv", ["metapl", *map(str, args)]),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    return Outcome(stopped.value.code, out.getvalue(), err.getvalue())


def assert_one_line(outcome: Outcome, word: str, silent: bool = True) -> None:
    """The command ended with exit code 2 and one line that holds the word; `silent`: it had printed nothing before."""
    assert outcome.code == 2
    assert outcome.err.startswith("metapl: ")
    assert outcome.err.endswith("\n")
    assert outcome.err.count("\n") == 1
    assert not (silent and outcome.out)
    assert word in outcome.err


def called(verb: Callable[..., Any], *args: Any) -> Result:
    """What a verb alone does, without the command around it; its errors are raised."""
    app = typer.Typer()
    app.command()(verb)
    outcome = CliRunner().invoke(app, list(map(str, args)))
    if outcome.exception and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome
