"""The table `[tune]` of a study: which hyperparameters are tuned, and how much may be spent on every arm.

    [tune]
    trials = 16                         # configurations tried for each arm, in each condition of [over]
    seeds = 4                           # runs of every trial
    first_seed = 1000                   # seeds of their own, so that nothing is chosen on what is reported later
    lr = { low = 0.01, high = 0.3 }     # a range, log-uniform where low > 0 unless `log = false`
    uda_weight = [0.0, 1.0, 4.0]        # or a list of choices

What an arm sets itself is not tuned in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from metapl.registry.errors import InputError, unknown
from metapl.studies import checks, specification
from metapl.studies.checks import Given
from metapl.studies.specification import Study
from metapl.training import config
from metapl.training.config import TrainConfig

DIGITS = 3
"""Significant digits of the floats that are tried."""


class Choices(NamedTuple):
    """One of these values."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Whether the value may be tried."""
        return value in self.values

    def tidy(self, value: Any) -> Any:
        """The value as it is tried: as it is."""
        return value

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that are right if all are."""
        return self.values


class Range(NamedTuple):
    """The numbers from `low` to `high`, both included: whole ones if they are."""

    low: float
    high: float
    log: bool
    """Whether their logarithms are uniform at first, rather than they."""

    def holds(self, value: Any) -> bool:
        """Whether the value may be tried."""
        return self.low <= value <= self.high

    def tidy(self, value: Any) -> Any:
        """The value as it is tried: a float with `DIGITS` significant digits, or one of the ends."""
        return value if isinstance(value, int) else min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that are right if all are."""
        return (self.low, self.high)


class Budget(NamedTuple):
    """What every arm of a study may use."""

    trials: int
    seeds: Sequence[int]
    space: Mapping[str, Choices | Range]

    def of(self, given: Given) -> dict[str, Choices | Range]:
        """What is tuned in an arm that sets these values itself."""
        return {key: values for key, values in self.space.items() if key not in given}


NUMBERS = {"trials": 16, "seeds": 4, "first_seed": 1000}
"""The defaults of the numbers in a `[tune]` table."""
LEAST = {"trials": 1, "seeds": 1, "first_seed": 0}
"""Their least values."""

DATA = ("data", "data_dir", "unlabelled", "more_labels", "split", "labels", "validation", "balanced", "from_")
"""What the examples follow from: scores of different ones do not compare."""

FIXED = ("seed", *DATA, "device", "log")
"""Cannot be tuned; the last two change nothing."""

TUNABLE = tuple(one.name for one in fields(TrainConfig) if one.name not in FIXED)
"""The fields of a configuration that may be tuned."""


def read(about: Study, path: str) -> Budget:
    """The budget of a study; `path` says where the study stands, for messages.

    Raises:
        InputError: an unknown key, a value of the wrong type or range, seeds that the study has too, or nothing to
            tune.
    """
    where = f"[tune] of {path}"
    numbers = {key: _number(where, key, about.tune.get(key, default)) for key, default in NUMBERS.items()}
    space = {key: _values(where, key, value) for key, value in about.tune.items() if key not in NUMBERS}
    for name in ("trials", "seeds"):
        checks.require_few(f"{where}: {name}", numbers[name])
    first = numbers["first_seed"]
    found = Budget(numbers["trials"], range(first, first + numbers["seeds"]), space)
    counts = (*about.over.values(), about.arms, found.seeds)
    checks.require_few(f"{where}: runs (conditions × arms × seeds × trials)", *map(len, counts), found.trials)
    _require_apart(where, found, about)
    _require_something(where, found, about)
    for arm, given in about.arms.items():
        for key, values in found.of(given).items():
            for value in values.ends:  # tried by building the configurations
                specification.jobs(about._replace(arms={arm: {**given, key: value}}, seeds=found.seeds[:1]))
    return found


def _number(where: str, key: str, value: Any) -> int:
    if type(value) is not int or value < LEAST[key]:
        raise InputError(f"{where}: {key} = {value!r} must be a whole number of at least {LEAST[key]}")
    return value


def _values(where: str, key: str, value: Any) -> Choices | Range:
    if key in FIXED:
        raise InputError(f"{where}: {key} cannot be tuned: give it in [common]")
    if key not in TUNABLE:
        raise unknown(f"key in {where}", key, [*NUMBERS, *TUNABLE])
    if isinstance(value, dict):
        return _range(where, key, value)
    if not isinstance(value, list) or not value:
        example = f"{key} = [{json.dumps(getattr(TrainConfig, key))}]"
        raise InputError(
            f"{where}: {key} must be a list of choices, as in {example}, or a range {{ low = …, high = … }}"
        )
    return Choices(tuple(config.checked(key, one, where) for one in value))


def _range(where: str, key: str, value: Mapping[str, Any]) -> Range:
    if not isinstance(getattr(TrainConfig, key), (int, float)) or isinstance(getattr(TrainConfig, key), bool):
        raise InputError(f"{where}: {key} is no number: give a list of choices")
    for name in value:
        if name not in ("low", "high", "log"):
            raise unknown(f"key of {key} in {where}", name, ("low", "high", "log"))
    if not {"low", "high"} <= set(value):
        raise InputError(f"{where}: the range of {key} needs both ends, as in {key} = {{ low = 1, high = 10 }}")
    low, high = (config.checked(key, value[name], where) for name in ("low", "high"))
    log = value.get("log", low > 0)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"{where}: {key} needs a low end below its high end, not {low} and {high}")
    if type(log) is not bool or (log and low <= 0):
        raise InputError(f"{where}: log of {key} must be true or false, and false where low is not above 0")
    return Range(low, high, log)


def _require_apart(where: str, found: Budget, about: Study) -> None:
    both = sorted(set(found.seeds) & set(about.seeds))
    if both:
        raise InputError(
            f"{where}: seed {both[0]} is one of the study's too, so that it would be chosen on what is reported: "
            f"give first_seed = {max(about.seeds) + 1}"
        )


def _require_something(where: str, found: Budget, about: Study) -> None:
    for key in found.space:
        if key in about.over:
            raise InputError(f"{where}: {key} is in [over] already: leave it out of one of them")
    if not any(found.of(given) for given in about.arms.values()):
        raise InputError(
            f"{where}: nothing to tune: give a key that not every arm sets itself, as in "
            "lr = { low = 0.01, high = 0.3 }"
        )
