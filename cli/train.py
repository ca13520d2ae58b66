"""`metapl train`."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from metapl.config import TrainConfig, flag, resolve

HELP = """Train a teacher and a student by Meta Pseudo Labels, beside its baselines, and print the test table.

Without arguments: ten labelled digits, exact feedback, under three minutes on two cores."""


def _with_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Give the command one flag for every field of `TrainConfig`; a flag that is not given is None."""
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[_type(field.default), _option(field)],
        )
        for field in fields(TrainConfig)
    ]
    own = [p for p in inspect.signature(function).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    hints = get_type_hints(function, include_extras=True)
    parameters = [p.replace(annotation=hints[p.name]) for p in own] + options
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in parameters}
    return function


def _type(default: Any) -> Any:
    return type(default) | None


def _option(field: Any) -> Any:
    names = [flag(field.name)]
    if isinstance(field.default, bool):
        names = [f"{flag(field.name)}/--no-{field.name.replace('_', '-')}"]
    shown = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return typer.Option(*names, help=f"{field.metadata['help']} \\[default: {shown or 'none'}]", show_default=False)


OutOption = typer.Option(
    help="Folder of the run, which must not exist. \\[default: runs/DATA-METHOD-…]", show_default=False
)
ConfigOption = typer.Option(help="TOML file with any of these flags as keys; flags override it.", show_default=False)


@_with_flags
def train(
    *, out: Annotated[Path | None, OutOption] = None, config: Annotated[Path | None, ConfigOption] = None, **flags: Any
) -> None:
    """See HELP."""
    started = time.perf_counter()
    resolved = resolve({key: value for key, value in flags.items() if value is not None}, config)
    from metapl import experiment, run_folder  # noqa: PLC0415 - imports torch
    from metapl.cli import display  # noqa: PLC0415 - imports torch
    from metapl.setting import prepare  # noqa: PLC0415 - imports torch

    setting = prepare(resolved)
    folder = out or _free_name(resolved)
    run_folder.create(folder)
    run_folder.save_start(folder, setting)
    display.header(setting, folder)
    with display.Bars(setting, folder / "metrics.jsonl") as report:
        result = experiment.run(setting, report)
    summary = run_folder.save_end(folder, setting, result, started)
    display.pictures(setting, result, folder)
    display.table(summary["test"], title=f"test, {len(setting.data.y_test)} examples, final weights")
    display.footer(summary, folder)


def _free_name(config: TrainConfig) -> Path:
    """The first folder of its kind below `runs/` that does not exist."""
    parts = [config.data, config.method, *([config.grad] if config.method == "mpl" else []), f"seed{config.seed}"]
    name = "-".join("".join(c if c.isalnum() or c in "-_." else "_" for c in part) for part in parts)
    count = 1
    while (path := Path("runs") / (name if count == 1 else f"{name}-{count}")).exists():
        count += 1
    return path
