"""What the file of a study may hold: its keys, their types and ranges, and how many runs it may ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metapl.registry.errors import InputError, unknown
from metapl.training import config

Given = Mapping[str, Any]
"""Keys of the configuration and their values."""

TABLES = ("common", "over", "arms", "tune")
"""Keys whose values are tables."""

NUMBERS = {"seeds": 8, "first_seed": 0, "reach": 0.0}
"""Keys whose values are numbers, and the defaults."""

DECIDED = {"seed": "seeds and first_seed say which", "log": "a study keeps the logs of its runs itself"}
"""Keys of the configuration that are not for a study, and why."""

MOST = 1_000_000
"""Runs beyond which a number is taken for a mistake: each is a configuration in memory, and a file."""


def require_few(what: str, *counts: int) -> None:
    """Check that the product of some counts is no more than `MOST`, before anything is built of so many.

    Raises:
        InputError: it is more.
    """
    if math.prod(counts) > MOST:
        raise InputError(f"{what}: {' × '.join(f'{count:,}' for count in counts)} are more than {MOST:,}: lower them")


def require_known(where: str, key: str, value: Any) -> None:
    """Check that a study has such a key, and that its value is of the right type.

    Raises:
        InputError: it has not, or it is not.
    """
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


def _checked(where: str, key: str, value: Any) -> Any:
    if key in DECIDED:
        raise InputError(f"{where}: leave out {key}: {DECIDED[key]}")
    return config.checked(key, value, where)


PRESET = "preset"
"""The key of an arm that stands for all that a preset sets; other keys of the arm override it."""


def given(where: str, values: Any) -> Given:
    """The keys and values of an arm, or of all arms, those of a preset written out.

    Raises:
        InputError: no table, a key or a value that the configuration does not have, or an unknown preset.
    """
    if not isinstance(values, dict):
        raise InputError(
            f"{where}: {values!r} must be a table of flags, such as [arms.none] and below it grad = 'none'"
        )
    own = {key: _checked(where, key, value) for key, value in values.items() if key != PRESET}
    return {**config.preset_values(str(values[PRESET])), **own} if PRESET in values else own


def listed(where: str, key: str, values: Any) -> list[Any]:
    """The values of a key for each of which every arm is trained.

    Raises:
        InputError: no list, an empty one, one with a value twice, or a value that the key cannot have.
    """
    if not isinstance(values, list) or not values:
        raise InputError(f"{where}: {key} in [over] must be a list of values, as in {key} = [10, 40]")
    checked = [_checked(where, key, value) for value in values]
    if len(set(checked)) < len(checked):
        raise InputError(f"{where}: {key} in [over] has a value twice: leave one out")
    return checked


def pairs(where: str, given: Sequence[Any], arms: Mapping[str, Given]) -> tuple[tuple[str, str], ...]:
    """The pairs of arms that are compared besides.

    Raises:
        InputError: one that is no pair of two arms.
    """
    for pair in given:
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
            raise InputError(f'{where}: {pair!r} in pairs must be two arms, as in ["exact", "uda"]')
        for arm in pair:
            if arm not in arms:
                raise unknown(f"arm in pairs of {where}", str(arm), arms)
    return tuple((one, other) for one, other in given)
