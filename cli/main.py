"""The `metapl` command: collects the verbs, and turns bad input into one line and exit code 2."""

from __future__ import annotations

import sys

import click
import typer

from metapl.cli import evaluate, grads, train
from metapl.errors import InputError

app = typer.Typer(
    name="metapl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Meta Pseudo Labels, with a meta-gradient that is proven right and chosen per run.",
)
app.command("train", help=train.HELP)(train.train)
app.command("eval", help=evaluate.HELP)(evaluate.evaluate)
app.command("grads", help=grads.HELP)(grads.grads)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
) -> None:
    if version:
        from metapl import __version__  # noqa: PLC0415 - only here

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; the exit code is 2 for bad input, 130 when interrupted."""
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        _stop(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        typer.echo(error.ctx.get_help())
        sys.exit(2)
    except click.UsageError as error:
        _stop(f"{error.format_message().rstrip('.')}: see {_command(error)} --help")
    except click.ClickException as error:
        _stop(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        typer.echo("metapl: interrupted", err=True)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _command(error: click.UsageError) -> str:
    return error.ctx.command_path if error.ctx else "metapl"


def _stop(message: str) -> None:
    typer.echo(f"metapl: {' '.join(message.split())}", err=True)
    sys.exit(2)
