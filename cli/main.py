"""The `metapl` command: collects the verbs, and turns bad input into one line and exit code 2."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer

from metapl.cli import ablate, compare, data, evaluate, export, grads, predict, report, train, tune
from metapl.cli.tell import listen, tell
from metapl.errors import InputError

app = typer.Typer(
    name="metapl",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Meta Pseudo Labels, with a meta-gradient that is proven right and chosen per run.",
)
app.command("train", help=train.HELP)(train.train)
app.command("eval", help=evaluate.HELP)(evaluate.evaluate)
app.command("predict", help=predict.HELP)(predict.predict)
app.command("report", help=report.HELP)(report.report)
app.command("export", help=export.HELP)(export.export)
app.add_typer(data.app, name="data", help=data.HELP)
app.command("grads", help=grads.HELP)(grads.grads)
app.command("compare", help=compare.HELP)(compare.compare)
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

INTERRUPTED = 130


def main() -> None:
    """Run the command line; the exit code is 2 for bad input, 130 when interrupted."""
    listen()
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        _stop(str(error))
    except CommandLineError as error:
        _stop(_one_line(error))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        typer.echo("metapl: interrupted", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _one_line(error: Any) -> str:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}: see {context.command_path} --help" if context else message


def _stop(message: str) -> NoReturn:
    tell(f"metapl: {' '.join(message.split())}")
    sys.exit(2)
