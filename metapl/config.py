"""The configuration of a run: every flag of `metapl train`, and nothing else.

The order of precedence is flags, then the file of `--config`, then the defaults here. The defaults are the best of a
small search on the validation part of digits; `docs/results/defaults.md` has the search.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from metapl.errors import InputError, unknown


@dataclass(frozen=True)
class TrainConfig:
    """What `metapl train` needs to know."""

    data: str = "digits"
    """Data source, NAME:key=value,…"""
    labels: int = 10
    """Labelled examples in all, balanced over the classes."""
    validation: int = 200
    """Labelled examples held out for choosing hyperparameters."""
    labelled_in_unlabelled: bool = True
    """Whether the labelled examples are in the unlabelled set too."""
    model: str = "mlp"
    """The student's network, and the teacher's unless it has its own."""
    teacher_model: str = ""
    """The teacher's network; empty for the student's."""
    method: str = "mpl"
    """mpl, uda, pseudo-labels or supervised."""
    baselines: bool = True
    """Whether `mpl` trains the three other methods first, for the table."""
    grad: str = "exact"
    """Estimator of the feedback."""
    pseudo_labels: str = "auto"
    """soft, sampled or argmax; auto takes the first that the estimator can use."""
    feedback_weight: float = 1.0
    """Factor of the feedback in the teacher's gradient."""
    cosine: bool = True
    """Normalise the feedback as the paper does, so that its weight needs no units."""
    steps: int = 1500
    """Training steps of each method."""
    batch: int = 128
    """Unlabelled examples a step."""
    labelled_batch: int = 64
    """Labelled examples a step; all of them if there are fewer."""
    optimizer: str = "sgd:momentum=0.9,nesterov=true,weight_decay=0.0005"
    """Update rule of every network."""
    lr: float = 0.05
    """The student's learning rate, and the baselines'; a cosine to zero."""
    teacher_lr: float = 0.05
    """The teacher's learning rate; a cosine to zero."""
    warmup: int = 0
    """Steps over which the learning rates grow linearly."""
    student_wait: int = 0
    """Steps before the student starts to move."""
    clip: float = 0.0
    """Largest norm of a gradient; 0 for no clipping."""
    uda_weight: float = 1.0
    """Factor of the teacher's consistency loss; 0 for none."""
    uda_temperature: float = 0.7
    """Temperature that sharpens the consistency target."""
    uda_threshold: float = 0.6
    """Least confidence of a consistency target."""
    uda_ramp: int = 0
    """Steps over which the consistency loss grows linearly."""
    smoothing: float = 0.0
    """Label smoothing, except in the exam."""
    ema: float = 0.99
    """Decay of the moving average of the weights."""
    finetune_steps: int = 200
    """Steps on labelled data at the end, from the averaged student."""
    finetune_lr: float = 0.001
    """Their constant learning rate."""
    seed: int = 0
    """Determines the split, the initial weights, the batches and all draws."""
    device: str = "auto"
    """cpu, cuda or auto."""

    def __post_init__(self) -> None:
        """Check the ranges that belong to no other part."""
        for name in ("steps", "batch", "labelled_batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{flag(name)} {getattr(self, name)} must be at least 1")
        for name in (
            "validation", "warmup", "student_wait", "clip", "uda_weight", "uda_ramp", "finetune_steps", "finetune_lr"
        ):
            if not getattr(self, name) >= 0:
                raise InputError(f"{flag(name)} {getattr(self, name)} must not be negative")
        for name in ("lr", "teacher_lr", "uda_temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{flag(name)} {getattr(self, name)} must be a positive number")
        for name in ("uda_threshold", "smoothing", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{flag(name)} {getattr(self, name)} must lie between 0 and 1")
        if self.method not in METHODS:
            raise unknown("method", self.method, METHODS)
        if self.warmup + self.student_wait >= self.steps:
            raise InputError(
                f"--warmup {self.warmup} and --student-wait {self.student_wait} leave nothing of --steps {self.steps}: "
                "lower them or take more steps"
            )


METHODS = ("mpl", "uda", "pseudo-labels", "supervised")


def flag(name: str) -> str:
    """A field's flag on the command line."""
    return "--" + name.replace("_", "-")


def resolve(given: Mapping[str, Any], file: Path | None = None) -> TrainConfig:
    """The configuration from what was given on the command line and in a TOML file.

    Raises:
        InputError: a file that cannot be read, an unknown key in it, or a value of the wrong type or range.
    """
    values = {**(_load(file) if file else {}), **given}
    return TrainConfig(**values)


def _load(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {file}: cannot be read ({error}): give a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"--config {file}: not valid TOML ({error})") from None
    return {key: _checked(key, value, str(file)) for key, value in values.items()}


def _checked(key: str, value: Any, where: str) -> Any:
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    if key not in defaults:
        raise unknown(f"key in {where}", key, defaults)
    wanted = type(defaults[key])
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise InputError(f"{where}: {key} = {value!r} must be a {wanted.__name__}, as in {key} = {_toml(defaults[key])}")
    return value


def _toml(value: Any) -> str:
    return json.dumps(value)  # for booleans, numbers and strings TOML and JSON agree


def dump(config: TrainConfig) -> str:
    """The configuration as TOML; `resolve` reads it back."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in asdict(config).items())
