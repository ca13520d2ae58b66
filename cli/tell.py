"""What the verbs say on standard error: one line each, in which nothing of a stranger's is obeyed by the terminal."""

from __future__ import annotations

import logging
from typing import Annotated, TextIO, TypeAlias

import typer

from metapl.files.escape import visible

TrustCode: TypeAlias = Annotated[
    bool,
    typer.Option("--trust-code", help="Import code that the files name, such as module:… and timm:…; says which."),
]


def tell(message: str) -> None:
    """Print a line on standard error."""
    typer.echo(visible(" ".join(message.splitlines())), err=True)


class Shown:
    """A terminal to write to, which obeys nothing of what is written."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal

    def write(self, text: str) -> int:
        """Write it out."""
        return self._terminal.write(visible(text))


class Warnings(logging.Handler):
    """The log `metapl` as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        tell(f"metapl: {record.getMessage()}")


def listen() -> None:
    """Print what the library warns of."""
    log = logging.getLogger("metapl")
    if not any(isinstance(one, Warnings) for one in log.handlers):
        log.addHandler(Warnings())
        log.propagate = False
