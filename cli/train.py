"""`metapl train`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metapl import methods
from metapl.cli.flags import Config, Preset, with_flags
from metapl.cli.tell import TrustCode
from metapl.registry.errors import InputError
from metapl.training.automatic import AUTO
from metapl.training.config import TrainConfig, resolve

if TYPE_CHECKING:
    from metapl.training.experiment import Experiment

HELP = """Train a classifier from few labels and much unlabelled data, beside a classical panel; print the test table.

Without arguments: ten labelled digits, in a minute on two cores. The method is chosen on the labels; --grad exact, or
any other estimator of the feedback, trains a teacher and a student by Meta Pseudo Labels."""


OutOption = typer.Option(
    help="Folder of the run, which must not exist. \\[default: runs/DATA-METHOD-…]", show_default=False
)

SeedsOption = typer.Option(help="Train so many seeds from --seed on, as one vectorised program where that is possible.")


@with_flags(fields(TrainConfig))
def train(
    *,
    out: Annotated[Path | None, OutOption] = None,
    seeds: Annotated[int, SeedsOption] = 1,
    config: Config = None,
    preset: Preset = "",
    trust_code: TrustCode = False,
    **flags: Any,
) -> None:
    """See HELP."""
    started = time.perf_counter()
    resolved = resolve({key: value for key, value in flags.items() if value is not None}, config, preset, trust_code)
    from metapl.studies import checks, execution  # noqa: PLC0415 - imports torch
    from metapl.training import loggers  # noqa: PLC0415 - imports torch
    from metapl.training.experiment import prepare  # noqa: PLC0415 - imports torch

    if seeds < 1:
        raise InputError(f"--seeds {seeds} must be at least 1")
    checks.require_few("--seeds", seeds)
    if out is None and execution.processes() > 1:
        raise InputError("several processes need one folder: give --out")
    experiment = prepare(resolved)
    loggers.require(resolved)
    if resolved.method == resolved.grad == AUTO:
        experiment = _chosen(experiment, resolved.alignment != AUTO)
    folder = out or _free_name(experiment.config)
    if seeds == 1:
        _one(experiment, folder, started)
    elif mine := execution.mine(range(seeds)):  # of more processes than seeds, some have none
        _several(experiment, mine, folder, started)


def _chosen(experiment: Experiment, aligned: bool) -> Experiment:
    """The experiment with the method that is the best of some by the labels that there are; says so."""
    from metapl.cli import display  # noqa: PLC0415 - imports torch
    from metapl.training import choosing  # noqa: PLC0415 - imports torch
    from metapl.training.experiment import assemble  # noqa: PLC0415 - imports torch

    with display.waiting("comparing methods on the labels"):
        choice = choosing.choose([experiment], aligned)[0]
    display.choice(choice)
    return assemble(choice.config, experiment.data, experiment.split)


def _one(experiment: Experiment, folder: Path, started: float) -> None:
    from metapl.cli import display  # noqa: PLC0415 - imports torch
    from metapl.data.fingerprint import fingerprint  # noqa: PLC0415 - imports torch
    from metapl.training import phases, run_folder  # noqa: PLC0415 - imports torch

    run_folder.create(folder)
    run_folder.save_start(folder, experiment, fingerprint(experiment.data))
    display.header(experiment, folder)
    with display.Bars([experiment], [folder]) as bars:
        for event in phases.run(experiment):
            bars.show(0, event)
            if isinstance(event, phases.Finished):
                result = event.result
    summary = run_folder.save_end(folder, experiment, result, started)
    display.pictures(experiment, result, folder)
    display.table([summary["test"]], title=display.title(experiment, 1))
    display.footer(summary, folder)


def _several(first: Experiment, seeds: Sequence[int], folder: Path, started: float) -> None:
    """One run folder a seed below the folder, and a table of means."""
    from metapl.cli import display  # noqa: PLC0415 - imports torch
    from metapl.data.fingerprint import fingerprint  # noqa: PLC0415 - imports torch
    from metapl.training import phases, population, run_folder  # noqa: PLC0415 - imports torch

    known = fingerprint(first.data)
    experiments = population.members([replace(first.config, seed=first.config.seed + number) for number in seeds])
    folders = [folder / f"seed{one.config.seed}" for one in experiments]
    for one, place in zip(experiments, folders, strict=True):
        run_folder.create(place)
        run_folder.save_start(place, one, known)
    display.header(first, folder, [one.config.seed for one in experiments])
    summaries = []
    with display.Bars(experiments, folders) as bars:
        for member, event in population.train_all(experiments):
            index = member or 0
            if isinstance(event, population.Apart):
                display.apart(len(seeds), event.why)
                continue
            bars.show(index, event)
            if isinstance(event, phases.Finished):
                summaries.append(run_folder.save_end(folders[index], experiments[index], event.result, started))
                display.pictures(experiments[index], event.result, folders[index])
    display.table([summary["test"] for summary in summaries], title=display.title(first, len(summaries)))
    display.footer(summaries[-1], folders[-1])


def _free_name(config: TrainConfig) -> Path:
    """The first folder of its kind below `runs/` that does not exist."""
    grad = [config.grad] if methods.find(config.method).paired else []
    data = Path(config.data).name or "data"
    parts = [data, config.method, *grad, f"seed{config.seed}"]
    name = "-".join("".join(c if c.isalnum() or c in "-_." else "_" for c in part) for part in parts)
    count = 1
    while (path := Path("runs") / (name if count == 1 else f"{name}-{count}")).exists():
        count += 1
    return path
