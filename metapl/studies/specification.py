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

The runs of a seed share split, initial weights, batches and views across arms, so that the arms can be compared in
pairs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from metapl.registry.errors import InputError, unknown
from metapl.training import config
from metapl.training.config import TrainConfig

Given = Mapping[str, Any]
"""Keys of the configuration and their values."""


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
        """Of its file: the setting, the arm and the seed."""
        return "-".join([*(part for part in (label(self.condition),) if part), self.arm, f"seed={self.config.seed}"])


LOOKS = 10
"""How often a run of a study is evaluated on its way, unless `report_every` is given."""

TABLES = ("common", "over", "arms", "tune")
NUMBERS = {"seeds": 8, "first_seed": 0, "reach": 0.0}


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
        _require_known(str(path), key, value)
    return found


def build(found: Mapping[str, Any], where: str) -> Study:
    """A study from what its file would hold; `where` says where that stands, for messages.

    Raises:
        InputError: an unknown key, a value of the wrong type or range, no arms or no seeds.
    """
    for key, value in found.items():
        _require_known(where, key, value)
    tables = {name: found.get(name, {}) for name in TABLES}
    over = {key: _listed(where, key, values) for key, values in tables["over"].items()}
    arms = {str(name): _given(where, values) for name, values in tables["arms"].items()}
    numbers = {**NUMBERS, **{key: found[key] for key in NUMBERS if key in found}}
    require_few(f"{where}: seeds", int(numbers["seeds"]))
    seeds = range(numbers["first_seed"], numbers["first_seed"] + numbers["seeds"])
    against, reach = found.get("against", ""), float(numbers["reach"])
    common, pairs = _given(where, tables["common"]), _pairs(where, found.get("pairs", []), arms)
    return _complete(Study(common, over, arms, seeds, against, reach, tables["tune"], pairs), where)


def combinations(vary: Mapping[str, Sequence[Any]]) -> dict[str, Given]:
    """An arm for every combination of values, by its name.

    Raises:
        InputError: more of them than anybody can train.
    """
    require_few("combinations of values", *map(len, vary.values()))
    found = [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]
    return {label(given): given for given in found}


def _require_known(where: str, key: str, value: Any) -> None:
    kinds: dict[str, type] = {name: type(number) for name, number in NUMBERS.items()}
    kinds |= {**dict.fromkeys(TABLES, dict), "against": str, "pairs": list}
    if key not in kinds:
        raise unknown(f"key in {where}", key, kinds)
    wanted = {
        dict: f"a table [{key}]",
        int: "a whole number",
        float: "a number",
        str: "the name of an arm",
        list: 'a list of pairs of arms, as in pairs = [["exact", "uda"]]',
    }[kinds[key]]
    if type(value) is not kinds[key] and not (kinds[key] is float and type(value) is int):
        raise InputError(f"{where}: {key} must be {wanted}")


DECIDED = {"seed": "seeds and first_seed say which", "log": "a study keeps the logs of its runs itself"}
"""Keys of the configuration that are not for a study, and why."""


def _checked(where: str, key: str, value: Any) -> Any:
    if key in DECIDED:
        raise InputError(f"{where}: leave out {key}: {DECIDED[key]}")
    return config.checked(key, value, where)


def _given(where: str, values: Any) -> Given:
    if not isinstance(values, dict):
        raise InputError(
            f"{where}: {values!r} must be a table of flags, such as [arms.none] and below it grad = 'none'"
        )
    return {key: _checked(where, key, value) for key, value in values.items()}


def _listed(where: str, key: str, values: Any) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise InputError(f"{where}: {key} in [over] must be a list of values, as in {key} = [10, 40]")
    checked = [_checked(where, key, value) for value in values]
    if len(set(checked)) < len(checked):
        raise InputError(f"{where}: {key} in [over] has a value twice: leave one out")
    return checked


def _pairs(where: str, pairs: Sequence[Any], arms: Mapping[str, Given]) -> tuple[tuple[str, str], ...]:
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
            raise InputError(f'{where}: {pair!r} in pairs must be two arms, as in ["exact", "uda"]')
        for arm in pair:
            if arm not in arms:
                raise unknown(f"arm in pairs of {where}", str(arm), arms)
    return tuple((one, other) for one, other in pairs)


def _complete(study: Study, where: str) -> Study:
    """With the arm to compare with, and every configuration tried.

    Raises:
        InputError: no arms, no seeds, an unknown arm to compare with, or a configuration that is wrong.
    """
    if not study.arms:
        raise InputError(f"{where}: nothing to compare: give each arm a table, such as [arms.none]")
    if not study.seeds:
        raise InputError(f"{where}: seeds must be at least 1")
    require_few(f"{where}: runs (settings × arms × seeds)", *map(len, (*study.over.values(), study.arms, study.seeds)))
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
            raise InputError(f"{where}: arm {arm!r}: {error}") from None
    return complete


MOST = 1_000_000
"""Runs beyond which a number is taken for a mistake: each is a configuration in memory, and a file."""


def require_few(what: str, *counts: int) -> None:
    """Check that the product of some counts is no more than `MOST`, before anything is built of so many.

    Raises:
        InputError: it is more.
    """
    if math.prod(counts) > MOST:
        raise InputError(f"{what}: {' × '.join(f'{count:,}' for count in counts)} are more than {MOST:,}: lower them")


def conditions(study: Study) -> list[Given]:
    """All combinations of the values in `over`, the last key changing fastest; one empty one without any."""
    return [dict(zip(study.over, values, strict=True)) for values in itertools.product(*study.over.values())]


def jobs(study: Study) -> list[Job]:
    """All runs of a study: setting by setting, arm by arm, seed by seed.

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
    """`key=value, …` of a setting; empty for none."""
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
