"""What is not as it was when a run stopped, in words: each of them would give it other numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metapl import methods
from metapl.data.fingerprint import FINGERPRINT, differences
from metapl.data.split import to_json
from metapl.files import schema
from metapl.training import machine
from metapl.training.config import TrainConfig
from metapl.training.experiment import Experiment
from metapl.training.stored import Stored

FREE = ("data_dir", "log")
"""Fields of the configuration on which no number depends."""


def all_of(
    folder: Path,
    experiment: Experiment,
    configs: tuple[TrainConfig, TrainConfig],
    known: Mapping[str, Any],
    found: Stored | None,
) -> list[str]:
    """Everything that is not as it was.

    Args:
        folder: of the run.
        experiment: as it is now.
        configs: of the run, and the one that it is to go on with.
        known: the fingerprint of the data as it is now.
        found: where the run stands.
    """
    return [*options(*configs, found), *data(folder, experiment, known), *made(found)]


def differing(then: TrainConfig, now: TrainConfig) -> list[str]:
    """The fields that differ, but for the `FREE` ones."""
    own, other = asdict(now), asdict(then)
    return [name for name in own if own[name] != other[name] and name not in FREE]


def options(then: TrainConfig, now: TrainConfig, found: Stored | None) -> list[str]:
    """The fields that differ and may not. A number of steps may grow where no step that was taken depends on it.

    Args:
        then: the configuration of the run.
        now: the one that it is to go on with.
        found: where it stands.
    """
    words = []
    for name in differing(then, now):
        allowed, why = _may_change(name, then, now, found)
        if not allowed:
            words.append(f"{name} is {getattr(now, name)}, and was {getattr(then, name)}{why}")
    return words


def _may_change(name: str, then: TrainConfig, now: TrainConfig, found: Stored | None) -> tuple[bool, str]:
    """Whether a field may have another value from now on, and if not, why, where it is not plain."""
    if name == "on_nonfinite" and "rollback" not in (then.on_nonfinite, now.on_nonfinite):
        return True, ""  # all steps so far are finite, or they would not be stored
    plan = methods.plan(now)
    users = [spec.name for spec in plan if spec.steps == name]
    if not users or getattr(now, name) < getattr(then, name):
        return False, ""
    if found is None:
        return True, ""
    if name == "steps" and now.schedule != "constant":
        return False, f" (with schedule = {now.schedule} every step depends on how many there are)"
    names = [spec.name for spec in plan]
    over = [phase for phase in users if found.phase in names and names.index(phase) < names.index(found.phase)]
    return not over, f" (the phase {over[0]} is over)" if over else ""


def data(folder: Path, experiment: Experiment, known: Mapping[str, Any]) -> list[str]:
    """How the data and the split of a run differ from those that its folder tells of; `known` is the fingerprint."""
    if not (folder / "fingerprint.json").exists():
        return []
    found = differences(schema.load(folder / "fingerprint.json", FINGERPRINT), dict(known))
    split = schema.load(folder / "split.json", schema.any_of)
    return [*found, *([] if split == to_json(experiment.split) else ["the split"])]


def made_with() -> dict[str, Any]:
    """What the last digits of a run depend on, beside its data and its configuration."""
    found = machine.environment()
    return {name: found[name] for name in ("metapl", "torch", "threads", "gpu")}


def made(found: Stored | None) -> list[str]:
    """What of `made_with` is not what it was when a state was stored."""
    now = made_with()
    then = now if found is None else found.made_with
    return [f"{name} is {now[name]}, and was {then.get(name)}" for name in now if now[name] != then.get(name)]
