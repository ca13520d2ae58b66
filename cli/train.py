"""`metapl train`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metapl import methods
from metapl.cli import launched
from metapl.cli.flags import Config, Preset, with_flags
from metapl.cli.tell import TrustCode
from metapl.registry import launch
from metapl.registry.errors import InputError
from metapl.studies import checks
from metapl.training.automatic import AUTO
from metapl.training.config import TrainConfig, resolve
from metapl.training.keeping import Keeping

if TYPE_CHECKING:
    from metapl.training.experiment import Experiment
    from metapl.training.phases import Result
    from metapl.training.session import Session
    from metapl.training.together import Group

HELP = """Train a classifier from few labels and much unlabelled data, beside a classical panel; print the test table.

Without arguments: ten labelled digits, in a minute on two cores. The method is chosen on the labels; --grad exact, or
any other estimator of the feedback, trains a teacher and a student by Meta Pseudo Labels."""


OutOption = typer.Option(
    help="Folder of the run, which must not exist or be empty. \\[default: runs/DATA-METHOD-…]", show_default=False
)

SeedsOption = typer.Option(help="Train so many seeds from --seed on, as one vectorised program where that is possible.")

ResumeOption = typer.Option(
    help="Go on with the run in this folder where it stopped, to the numbers that it would have had.",
    show_default=False,
)

ForceOption = typer.Option(help="With --resume: although the data, the configuration or a version has changed.")


@with_flags([*fields(TrainConfig), *fields(Keeping)])
def train(
    *,
    out: Annotated[Path | None, OutOption] = None,
    seeds: Annotated[int, SeedsOption] = 1,
    config: Config = None,
    preset: Preset = "",
    resume: Annotated[Path | None, ResumeOption] = None,
    force: Annotated[bool, ForceOption] = False,
    trust_code: TrustCode = False,
    **flags: Any,
) -> None:
    """See HELP."""
    started = time.perf_counter()
    given = {key: value for key, value in flags.items() if value is not None}
    keeping = Keeping(**{one.name: given.pop(one.name) for one in fields(Keeping) if one.name in given})
    if seeds < 1:
        raise InputError(f"--seeds {seeds} must be at least 1")
    checks.require_few("--seeds", seeds)
    if launched.follows(seeds, resume):
        _follow()
        return
    if resume is None and launched.has_begun(out):
        resume, out, config, preset, given = out, None, None, "", {}
    if resume is not None:
        if out or config or preset or seeds != 1:
            raise InputError("--resume has the folder, the seeds and the configuration: leave out what names another")
        find = partial(_resumed, resume, given, keeping.spare, (force, trust_code))
    else:
        find = partial(_begun, _configured(given, config, preset, trust_code), out, seeds)
    if launched.is_shared(seeds, resume):
        _shared(find, resume, keeping, started)
        return
    from metapl.cli import stops  # noqa: PLC0415 - imports torch

    with stops.beginning(resume):
        session = find()
    if session is not None:
        _run(session, keeping, started - session.seconds)


def _follow() -> None:
    """Train in one of the other processes what the first one says."""
    from metapl.cli import together  # noqa: PLC0415 - imports torch
    from metapl.training.together import Group  # noqa: PLC0415 - imports torch

    with Group() as group:
        together.follow(group)


def _shared(find: Callable[[], Session | None], resume: Path | None, keeping: Keeping, started: float) -> None:
    """Train one run in all processes, of which this is the one that writes."""
    from metapl.cli import stops, together  # noqa: PLC0415 - imports torch
    from metapl.training.together import Group  # noqa: PLC0415 - imports torch

    with Group() as group:
        with stops.beginning(resume):
            session = together.lead(group, find())
        if session is not None:
            _run(session, keeping, started - session.seconds, group)


def _configured(given: dict[str, Any], file: Path | None, preset: str, trust_code: bool) -> TrainConfig:
    """The configuration of new runs: with `--from` that of the other run, in which labels add up."""
    if "from_" not in given:
        return resolve(given, file, preset, trust_code)
    if file or preset:
        raise InputError("--from has the configuration of the run: leave out --config and --preset, and give flags")
    from metapl.training import run_folder  # noqa: PLC0415 - imports torch

    then = run_folder.config(Path(given["from_"]), trust_code=trust_code)
    more = [*filter(None, (then.more_labels, given.pop("more_labels", "")))]
    open_again = {"grad": AUTO, "alignment": AUTO} if given.get("method") == AUTO else {}
    anew = {"split": "", "device": "auto", **open_again, **given}
    return replace(then, **anew, more_labels=os.pathsep.join(more))


def _begun(config: TrainConfig, out: Path | None, seeds: int) -> Session | None:
    """New runs; none where there are more processes than seeds."""
    from metapl.studies import execution  # noqa: PLC0415 - imports torch
    from metapl.training import loggers, population, session, several, threads  # noqa: PLC0415 - imports torch
    from metapl.training.experiment import prepare  # noqa: PLC0415 - imports torch

    if out is None and launch.processes() > 1:
        raise InputError("several processes need one folder: give --out")
    if out is not None and seeds == 1:
        session.require_new(out)
    experiment = prepare(config)
    threads.settle(experiment, seeds)
    loggers.require(config)
    if config.method == config.grad == AUTO:
        experiment = _chosen(experiment, config.alignment != AUTO)
    experiment.begun()  # weights that do not fit are refused before a folder is made
    config, folder = experiment.config, out or _free_name(experiment.config)
    if seeds == 1:
        return session.begin([experiment], [folder], folder)
    mine = execution.mine(range(seeds))
    if not mine:
        return None
    experiments = population.members([replace(config, seed=config.seed + number) for number in mine])
    folders = several.make(folder, config.seed, seeds)
    return session.begin(experiments, [folders[number] for number in mine], folder)


def _chosen(experiment: Experiment, aligned: bool) -> Experiment:
    """The experiment with the method that is the best of some by the labels that there are; says so."""
    from metapl.cli import display  # noqa: PLC0415 - imports torch
    from metapl.training import choosing  # noqa: PLC0415 - imports torch
    from metapl.training.experiment import assemble  # noqa: PLC0415 - imports torch

    with display.waiting("comparing methods on the labels"):
        choice = choosing.choose([experiment], aligned)[0]
    display.choice(choice)
    return assemble(choice.config, experiment.data, experiment.split)._replace(fitted=choice.fitted)


def _resumed(folder: Path, given: dict[str, Any], spare: str, allowed: tuple[bool, bool]) -> Session | None:
    """Runs that go on; none where all are finished. `allowed` says whether by force, and whether code is trusted."""
    from metapl.studies import execution  # noqa: PLC0415 - imports torch
    from metapl.training import loggers, population, session, several, threads  # noqa: PLC0415 - imports torch

    force, trust_code = allowed
    folders = several.find(folder)
    then = several.configuration(folders, trust_code)
    now = replace(then, **given)
    loggers.require(now)
    mine = execution.mine(range(len(folders)))
    if not mine:
        return None
    experiments = population.members([replace(now, seed=now.seed + number) for number in mine])
    threads.settle(experiments[0], len(folders))
    found = session.resume(experiments, [folders[number] for number in mine], folder, (then, now), spare, force)
    if found is None:
        typer.echo(f"{folder} is finished: there is nothing to go on with")
    return found


def _run(session: Session, keeping: Keeping, started: float, group: Group | None = None) -> None:
    """Train, with a log and a folder for each run; print the table, of several runs their means."""
    from metapl.cli import display, stops  # noqa: PLC0415 - imports torch
    from metapl.training import changes, keeper, pace, phases, population  # noqa: PLC0415 - imports torch

    experiments, first = session.experiments, session.experiments[0]
    made_with = {**changes.made_with(), "processes": first.processes.count}
    kept = keeper.Keeper(session, methods.lengths(first.config), keeping, made_with, started)
    display.header(first, session.root, () if session.alone else session.seeds)
    summaries = session.summaries()
    bars = display.Bars(experiments, [one.path for one in session.folders], started)
    late = stops.late(session.root, kept)
    if group is not None:
        group.late = late
    with session.held(), stops.reported(session.root, kept), stops.heeded(late), kept, bars:
        events = population.train_all(experiments, session.finished, session.since, session.alone)
        for member, event in pace.watched(events):
            kept.see(member, event)
            index = member or 0
            if isinstance(event, population.Apart):
                display.apart(len(experiments), event.why)
                continue
            bars.show(index, event)
            if isinstance(event, phases.Finished):
                summaries[index] = _finish(session, index, event.result, started)
        kept.over()
        last = session.folders[-1].path
    display.table([summary["test"] for summary in summaries.values()], title=display.title(first, len(summaries)))
    display.footer([*summaries.values()][-1], last, first.config.method)


def _finish(session: Session, index: int, result: Result, started: float) -> dict[str, Any]:
    from metapl.cli import display  # noqa: PLC0415 - imports torch
    from metapl.training import run_folder  # noqa: PLC0415 - imports torch

    one, folder = session.experiments[index], session.folders[index].path
    return run_folder.save_end(folder, one, result, started, lambda: display.pictures(one, result, folder))


def _free_name(config: TrainConfig) -> Path:
    """The first folder of its kind below `runs/` that does not exist."""
    grad = [config.grad] if methods.find(config.method).paired else []
    from metapl.data.sources import find  # noqa: PLC0415 - imports torch

    data = find.called(config.data) or "data"
    parts = [data, config.method, *grad, f"seed{config.seed}"]
    name = "-".join("".join(c if c.isalnum() or c in "-_." else "_" for c in part) for part in parts)
    count = 1
    while (path := Path("runs") / (name if count == 1 else f"{name}-{count}")).exists():
        count += 1
    return path
