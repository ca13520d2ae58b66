"""`metapl train`."""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from metapl.cli.flags import Config, Preset, with_flags
from metapl.config import PAIRED, TrainConfig, resolve

HELP = """Train a teacher and a student by Meta Pseudo Labels, beside its baselines, and print the test table.

Without arguments: ten labelled digits, exact feedback, under three minutes on two cores."""


OutOption = typer.Option(
    help="Folder of the run, which must not exist. \\[default: runs/DATA-METHOD-…]", show_default=False
)


@with_flags(fields(TrainConfig))
def train(
    *,
    out: Annotated[Path | None, OutOption] = None,
    config: Config = None,
    preset: Preset = "",
    **flags: Any,
) -> None:
    """See HELP."""
    started = time.perf_counter()
    resolved = resolve({key: value for key, value in flags.items() if value is not None}, config, preset)
    from metapl import experiment, loggers, run_folder  # noqa: PLC0415 - imports torch
    from metapl.cli import display  # noqa: PLC0415 - imports torch
    from metapl.setting import prepare  # noqa: PLC0415 - imports torch

    setting = prepare(resolved)
    loggers.require(resolved)
    folder = out or _free_name(resolved)
    run_folder.create(folder)
    run_folder.save_start(folder, setting)
    display.header(setting, folder)
    with display.Bars(setting, folder) as bars:
        result = experiment.run(setting, bars.report, bars.tick)
    summary = run_folder.save_end(folder, setting, result, started)
    display.pictures(setting, result, folder)
    display.table(summary["test"], title=f"test, {len(setting.data.y_test)} examples, final weights")
    display.footer(summary, folder)


def _free_name(config: TrainConfig) -> Path:
    """The first folder of its kind below `runs/` that does not exist."""
    grad = [config.grad] if config.method in PAIRED else []
    data = Path(config.data).name or "data"
    parts = [data, config.method, *grad, f"seed{config.seed}"]
    name = "-".join("".join(c if c.isalnum() or c in "-_." else "_" for c in part) for part in parts)
    count = 1
    while (path := Path("runs") / (name if count == 1 else f"{name}-{count}")).exists():
        count += 1
    return path
