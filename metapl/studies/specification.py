"""A study: arms that differ in what they train, on the same seeds, as a TOML file and as the runs it asks for.

    seeds = 32                      # how many; the first is `first_seed`, 0
    against = "none"                # the arm that the others are compared with; the first unless it is named
    pairs = [["exact", "uda"]]      # other comparisons: an arm, and the one that is taken from it
    reach = 0.99                    # count the runs with this accuracy; 0, the default, for no such column

    [common]                        # flags of `metapl train`, for all arms
    data = "digits"

    [over]                          # every arm once for each of these
    labels = [10, 40]

    [arms.none]                     # what makes an arm
    grad = "none"

    [arms.exact]

    [arms.uda]
    method = "uda"

    [arms.fixmatch]
    preset = "fixmatch"             # all that the preset sets; other keys of the arm override it

The runs of a seed share split, initial weights, batches and views across arms, so that the arms can be compared in
pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from metapl.registry.errors import InputError, unknown
from metapl.studies import checks
from metapl.studies.checks import Given
from metapl.training import config
from metapl.training.config import TrainConfig


class Study(NamedTuple):
    """What is compared, on which seeds."""

    common: Given
    over: Mapping[str, Sequence[Any]]
    arms: Mapping[str, Given]
    seeds: Sequence[int]
    """A range, or any others in a list."""
    against: str
    reach: float
    """A top-1 accuracy whose reaching is counted; 0 for none."""
    tune: Mapping[str, Any]
    """What `metapl tune` needs to know; see `metapl.studies.search`."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Further comparisons, of the first arm of a pair with the second."""


class Job(NamedTuple):
    """One run of a study."""

    condition: Given
    """The values of the keys in `over`."""
    arm: str
    config: TrainConfig

    @property
    def name(self) -> str:
        """Of its file: the condition, the arm and the seed."""
        return "-".join([*(part for part in (label(self.condition),) if part), self.arm, f"seed={self.config.seed}"])


LOOKS = 10
"""How often a run of a study is evaluated on its way, unless `report_every` is given."""


def read(path: Path) -> Study:
    """A study from a TOML file.

    Raises:
        InputError: it cannot be read, or `build` refuses it.
    """
    return build(load(path), str(path))


def load(path: Path) -> dict[str, Any]:
    """What the TOML file of a study holds; of its tables only that they are tables is checked.

    Raises:
        InputError: it cannot be read, or has an unknown key or one of the wrong type.
    """
    found = config.read_toml(path, f"study {path}")
    for key, value in found.items():
        checks.require_known(str(path), key, value)
    return found


def build(found: Mapping[str, Any], where: str) -> Study:
    """A study from what its file would hold; `where` says where that stands, for messages.

    Raises:
        InputError: an unknown key, a value of the wrong type or range, no arms or no seeds.
    """
    for key, value in found.items():
        checks.require_known(where, key, value)
    tables = {name: found.get(name, {}) for name in checks.TABLES}
    over = {key: checks.listed(where, key, values) for key, values in tables["over"].items()}
    arms = {str(name): checks.given(where, values) for name, values in tables["arms"].items()}
    numbers = {**checks.NUMBERS, **{key: found[key] for key in checks.NUMBERS if key in found}}
    checks.require_few(f"{where}: seeds", int(numbers["seeds"]))
    seeds = range(numbers["first_seed"], numbers["first_seed"] + numbers["seeds"])
    against, reach = found.get("against", ""), float(numbers["reach"])
    common, pairs = checks.given(where, tables["common"]), checks.pairs(where, found.get("pairs", []), arms)
    return _complete(Study(common, over, arms, seeds, against, reach, tables["tune"], pairs), where)


def combinations(vary: Mapping[str, Sequence[Any]]) -> dict[str, Given]:
    """An arm for every combination of values, by its name.

    Raises:
        InputError: more of them than anybody can train.
    """
    checks.require_few("combinations of values", *map(len, vary.values()))
    found = [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]
    return {label(given): given for given in found}


def _complete(study: Study, where: str) -> Study:
    """With the arm to compare with, and every configuration tried.

    Raises:
        InputError: no arms, no seeds, an unknown arm to compare with, or a configuration that is wrong.
    """
    if not study.arms:
        raise InputError(f"{where}: nothing to compare: give each arm a table, such as [arms.none]")
    if not study.seeds:
        raise InputError(f"{where}: seeds must be at least 1")
    counts = map(len, (*study.over.values(), study.arms, study.seeds))
    checks.require_few(f"{where}: runs (conditions × arms × seeds)", *counts)
    if not 0 <= study.reach <= 1:
        raise InputError(f"{where}: reach must be a share from 0 to 1, as in reach = 0.99")
    if study.against and study.against not in study.arms:
        raise unknown("arm to compare with", study.against, study.arms)
    for arm, given in study.arms.items():
        for key in set(given) & set(study.over):
            raise InputError(f"{where}: {key} is in [over] and in the arm {arm!r}: leave out one of them")
    complete = study._replace(against=study.against or next(iter(study.arms)))
    for arm, given in study.arms.items():
        try:
            jobs(complete._replace(arms={arm: given}, seeds=study.seeds[:1]))
        except InputError as error:
            raise InputError(f"{where}: arm {arm!r}: {error}", *error.fields) from None
    return complete


def conditions(study: Study) -> list[Given]:
    """All combinations of the values in `over`, the last key changing fastest; one empty one without any."""
    return [dict(zip(study.over, values, strict=True)) for values in itertools.product(*study.over.values())]


def jobs(study: Study) -> list[Job]:
    """All runs of a study: condition by condition, arm by arm, seed by seed.

    Raises:
        InputError: values that do not go together.
    """
    return [
        Job(condition, arm, _configuration({**study.common, **condition, **given, "seed": seed}))
        for condition in conditions(study)
        for arm, given in study.arms.items()
        for seed in study.seeds
    ]


def _configuration(given: Given) -> TrainConfig:
    """Without the baselines that `train` adds for its table, and with few evaluations, unless they are asked for."""
    first = TrainConfig(**{"baselines": False, **given})
    return first if "report_every" in given else replace(first, report_every=max(1, first.steps // LOOKS))


def label(given: Given) -> str:
    """`key=value, …` of a condition; empty for none."""
    return ", ".join(f"{key}={value}" for key, value in given.items())


def dump(study: Study, comment: str = "") -> str:
    """The TOML file that `read` reads as this study, with a comment above it.

    Raises:
        ValueError: seeds that are not in a row.
    """
    first, count = study.seeds[0], len(study.seeds)
    if any(seed != first + number for number, seed in enumerate(study.seeds)):
        raise ValueError(f"seeds {study.seeds} are not in a row")
    numbers = {
        "seeds": count,
        "first_seed": first,
        "against": study.against,
        "reach": study.reach,
        "pairs": study.pairs,
    }
    tables = {"common": study.common, "over": study.over, "tune": study.tune, "arms": study.arms}
    return "".join(f"# {line}\n" for line in comment.splitlines()) + tomli_w.dumps({**numbers, **tables})
