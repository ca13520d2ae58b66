"""`metapl compare`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metapl.cli.flags import Config, with_flags
from metapl.cli.tell import TrustCode
from metapl.registry.errors import InputError
from metapl.training.config import TrainConfig, flag, resolve

if TYPE_CHECKING:
    from metapl.studies.comparison import Plan, Report
    from metapl.studies.snapshot import Stage

HELP = """Measure estimators of the feedback at one point of training: accuracy against the exact gradient, and cost.

Without arguments: digits with ten labels, after 200 steps; about a minute on two cores."""

STEPS = 200

# `--steps` and `--grad` mean something else here; the rest has no influence on the feedback.
NOT_HERE = (
    "method",
    "baselines",
    "calibrator",
    "guide",
    "guide_weight",
    "grad",
    "steps",
    "feedback_size",
    "schedule",
    "warmup",
    "student_wait",
    "ema",
    "log",
)
FIELDS = [
    one for one in fields(TrainConfig) if one.name not in NOT_HERE and not one.name.startswith(("finetune", "report"))
]


GradOption = typer.Option(
    help="Estimator to compare, NAME:key=value,…; may be given again and again. \\[default: all that fit]",
    show_default=False,
)
RunOption = typer.Option(help="Start from a folder that `metapl train` wrote, and its configuration.")
StepsOption = typer.Option(help=f"Steps of Meta Pseudo Labels to train first. \\[default: {STEPS}]", show_default=False)
JsonOption = typer.Option(help="Write everything that was measured to this file.", show_default=False)
PlotOption = typer.Option(help="Draw accuracy against cost to this .png file.", show_default=False)


@with_flags(FIELDS)
def compare(  # noqa: PLR0913 - one parameter a flag
    *,
    grad: Annotated[list[str] | None, GradOption] = None,
    run: Annotated[Path | None, RunOption] = None,
    steps: Annotated[int | None, StepsOption] = None,
    config: Config = None,
    draws: Annotated[int, typer.Option(help="Draws of every estimator that has randomness.")] = 400,
    cosine: Annotated[float, typer.Option(help="The accuracy to reach, as a cosine to the exact gradient.")] = 0.9,
    rounds: Annotated[int, typer.Option(help="Timed calls of every estimator, taking turns.")] = 30,
    json: Annotated[Path | None, JsonOption] = None,
    plot: Annotated[Path | None, PlotOption] = None,
    trust_code: TrustCode = False,
    **flags: Any,
) -> None:
    """See HELP."""
    given = {key: value for key, value in flags.items() if value is not None}
    _require_range(draws, cosine, rounds, steps)
    if run is not None:
        _require_alone(run, given, {"--steps": steps, "--config": config})
    else:
        read = resolve(given, config, trust_code=trust_code)  # simple errors come before torch does
        wanted = replace(read, method="mpl", guide="none")  # what is trained; no phase before it fits a guide
    from metapl.cli import compare_table, display  # noqa: PLC0415 - imports torch
    from metapl.files import storage  # noqa: PLC0415 - imports torch
    from metapl.reporting import plots  # noqa: PLC0415 - imports torch
    from metapl.studies import comparison as comparing  # noqa: PLC0415 - imports torch

    _require_place("--json", json)
    _require_place("--plot", plot, ".png")
    estimators, unloaded = comparing.choose(grad or [])
    plan = comparing.Plan(draws, cosine, rounds)
    with display.console.status("") as status:
        if run is not None:
            stage = _restored(run, given.get("device", "auto"), trust_code)
        else:
            stage = _trained(wanted, STEPS if steps is None else steps, status.update)
        report = comparing.compare(stage, estimators, plan, status.update)
    report.left_out.update(unloaded)
    compare_table.show(stage, report, plan)
    if json is not None:
        storage.write_json(json, _record(stage, report, plan, run))
    if plot is not None:
        plots.accuracy_against_cost(comparing.as_json(report)["rows"], cosine, _title(stage), plot)


def _require_range(draws: int, cosine: float, rounds: int, steps: int | None) -> None:
    if draws < 10:
        raise InputError(f"--draws {draws} must be at least 10: standard errors need as many")
    if not 0.0 < cosine < 1.0:
        raise InputError(f"--cosine {cosine} must lie between 0 and 1, both excluded, as in --cosine 0.9")
    if rounds < 1:
        raise InputError(f"--rounds {rounds} must be at least 1")
    if steps is not None and steps < 0:
        raise InputError(f"--steps {steps} must be at least 0, which is fresh weights")


def _require_alone(run: Path, flags: dict[str, Any], others: dict[str, Any]) -> None:
    surplus = [flag(name) for name in flags if name != "device"]
    surplus += [name for name, value in others.items() if value is not None]
    if surplus:
        raise InputError(f"--run {run} brings its own configuration and weights: leave out {', '.join(surplus)}")


def _require_place(name: str, path: Path | None, suffix: str = "") -> None:
    """Fail before the work, not after it."""
    from metapl.files import storage  # noqa: PLC0415 - quick help

    if path is None:
        return
    if path.is_dir() or (suffix and path.suffix != suffix):
        raise InputError(f"{name} {path} must be a file{suffix and f' that ends in {suffix}'}: name one")
    trial = path.with_name(f".{path.name}.trial")
    try:
        storage.write_text(trial, "")
    except InputError:
        raise InputError(f"{name} {path} cannot be written: name a file that you may write") from None
    trial.unlink()


def _restored(run: Path, device: str, trust_code: bool) -> Stage:
    from metapl.studies import snapshot  # noqa: PLC0415 - imports torch
    from metapl.training import run_folder  # noqa: PLC0415 - imports torch

    return snapshot.restored(*run_folder.load(run, device, trust_code))


def _trained(config: TrainConfig, steps: int, tell: Callable[[str], None]) -> Stage:
    from metapl.studies import snapshot  # noqa: PLC0415 - imports torch
    from metapl.training import experiment  # noqa: PLC0415 - imports torch

    built = experiment.prepare(config)
    return snapshot.trained(built, steps, lambda progress: tell(f"training, step {progress.step} of {steps}"))


def _title(stage: Stage) -> str:
    config = stage.experiment.config
    return f"{config.data}, {len(stage.experiment.split.labelled)} labels, {config.model}, after {stage.step} steps"


def _record(stage: Stage, report: Report, plan: Plan, run: Path | None) -> dict[str, Any]:
    from metapl.studies import comparison  # noqa: PLC0415 - imports torch
    from metapl.training import machine  # noqa: PLC0415 - imports torch

    return {
        "environment": machine.environment(),
        "config": asdict(stage.experiment.config),
        "run": None if run is None else str(run),
        "steps": stage.step,
        **plan._asdict(),
        **comparison.as_json(report),
    }
