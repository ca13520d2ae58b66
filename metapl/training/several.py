"""Several runs below one folder: which they are, and what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from metapl.files import schema, storage
from metapl.registry.errors import InputError
from metapl.training.config import TrainConfig, resolve

SEEDS = "seeds.json"
"""Says which runs stand below a folder of several."""

_SEEDS = schema.table({"first": schema.whole(-(2**63), 2**64), "count": schema.whole(1, 10**6)})


def make(folder: Path, first: int, count: int) -> list[Path]:
    """The folders of runs with `count` seeds below one folder, which says so from now on.

    Raises:
        InputError: it cannot be written, or is of other seeds.
    """
    wanted = {"first": first, "count": count}
    if (folder / SEEDS).exists() and schema.load(folder / SEEDS, _SEEDS) != wanted:
        raise InputError(f"out = {folder} holds runs of other seeds: name a new folder, or remove this one", "out")
    storage.write_json(folder / SEEDS, wanted)
    return _below(folder, wanted)


def _below(folder: Path, found: dict[str, int]) -> list[Path]:
    return [folder / f"seed{found['first'] + number}" for number in range(found["count"])]


def find(folder: Path) -> list[Path]:
    """The folders of the runs in what `metapl train` wrote: itself, or those of its seeds.

    Raises:
        InputError: it is neither.
    """
    if (folder / "config.toml").is_file():
        return [folder]
    if (folder / SEEDS).is_file():
        return _below(folder, schema.load(folder / SEEDS, _SEEDS))
    raise InputError(f"{folder} is not a run: name a folder that `metapl train` wrote")


def configuration(folders: Sequence[Path], trust_code: bool = False) -> TrainConfig:
    """The configuration of the first of these runs.

    Raises:
        InputError: none has one, or it needs code that is not trusted, see `metapl.registry.trust`.
    """
    for place, folder in enumerate(folders):
        if (folder / "config.toml").is_file():
            found = resolve({}, folder / "config.toml", trust_code=trust_code)
            return replace(found, seed=found.seed - place)
    raise InputError(f"{folders[0].parent} has no run that has begun: give the command that it was made with again")
