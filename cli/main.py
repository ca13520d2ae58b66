"""The `metapl` command: collects the verbs, and turns bad input into one line and exit code 2."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import typer

from metapl.cli import (
    ablate,
    bench,
    compare,
    data,
    embed,
    evaluate,
    export,
    flags,
    grads,
    predict,
    report,
    status,
    streams,
    suggest,
    train,
    tune,
)
from metapl.cli.reading import Reading
from metapl.cli.streams import INTERRUPTED, OUTPUT, Spoken
from metapl.cli.tell import listen, tell
from metapl.data import progress
from metapl.registry.errors import InputError

EPILOG = """Photographs in photos/, some of them named in photos/labels.csv with the columns filename and label:

`metapl data check photos/` says what they are taken for.

`metapl train --data photos/ --out run` learns from those with a label and from those without.

`metapl predict run photos/ --out predictions.csv` writes what each of them is, for a spreadsheet.

`metapl suggest run` writes a page and a table of what to label next."""

app = typer.Typer(
    name="metapl",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Meta Pseudo Labels, with a meta-gradient that is proven right and chosen per run.",
    epilog=EPILOG,
)
app.command("train", help=train.HELP)(train.train)
app.command("status", help=status.HELP)(status.status)
app.command("eval", help=evaluate.HELP)(evaluate.evaluate)
app.command("predict", help=predict.HELP)(predict.predict)
app.command("suggest", help=suggest.HELP)(suggest.suggest)
app.command("report", help=report.HELP)(report.report)
app.command("export", help=export.HELP)(export.export)
app.add_typer(data.app, name="data", help=data.HELP)
app.command("embed", help=embed.HELP)(embed.embed)
app.command("grads", help=grads.HELP)(grads.grads)
app.command("compare", help=compare.HELP)(compare.compare)
app.command("bench", help=bench.HELP)(bench.bench)
app.command("ablate", help=ablate.HELP)(ablate.ablate)
app.command("tune", help=tune.HELP)(tune.tune)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
) -> None:
    if version:
        from metapl import __version__  # noqa: PLC0415 - only here

        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


# Recent Typers carry their own copy of Click, so its exceptions are reached through the one that Typer exports.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]
CommandLineError: type[Exception] = UsageError.__bases__[0]


def main() -> None:
    """Run the command line; the exit code is 2 for bad input or output, 130 when interrupted."""
    streams.prepare()
    listen()
    code = _run()
    OUTPUT.flush()
    if OUTPUT.lost is not None and code == 0:
        code = _output(OUTPUT.lost)
    streams.finish()
    sys.exit(code)


def _run() -> int:
    """The exit code of the verb."""
    try:
        with progress.listening(Reading()):
            code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit:  # so Click and rich end where the reader has gone
        code = streams.PIPE_CLOSED
    except Exception as error:
        code = _code(error)
        if code is None:
            raise
    if code == INTERRUPTED and not isinstance(code, Spoken):  # some versions of typer raise, others return the code
        _say("metapl: interrupted")
    return code if isinstance(code, int) else 0


def _code(error: Exception) -> int | None:
    """Say in one line what an error is, and return the exit code; None for a fault of the program."""
    if isinstance(error, InputError):
        return _failed(flags.spoken(error))
    if isinstance(error, CommandLineError):
        return _failed(_one_line(error))
    if isinstance(error, OSError):
        # What is written to has no name here; a file that no verb expected to fail has one.
        return _output(error) if error.filename is None else _failed(f"{error.filename}: {error.strerror}: see to it")
    if _is_of_memory(error):
        return _failed(MEMORY)
    return None


MEMORY = (
    "there is not enough memory for this: give --microbatch, or lower --batch, the size of the model or of the data"
)


def _is_of_memory(error: Exception) -> bool:
    """Whether Python, numpy or torch could not allocate something: of torch's two errors one has no type of its own."""
    name = type(error).__name__
    return isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _output(error: OSError) -> int:
    if streams.is_gone(error):
        return streams.PIPE_CLOSED
    return _failed(f"standard output cannot be written ({error.strerror}): make room, or send it elsewhere")


def _one_line(error: Any) -> str:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}: see {context.command_path} --help" if context else message


def _failed(message: str) -> int:
    _say(f"metapl: {' '.join(message.split())}")
    return 2


def _say(line: str) -> None:
    with suppress(OSError):  # then there is nobody to tell
        tell(line)
