"""The runs that a process is about to train: begun in folders of their own, or going on in folders that are there."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from metapl import methods
from metapl.data import fingerprint
from metapl.files.lock import Held
from metapl.registry.errors import InputError
from metapl.training import changes, fitting, loggers, population, run_files, run_folder, state_files
from metapl.training.config import TrainConfig
from metapl.training.experiment import Experiment
from metapl.training.stored import Stored

LOG = logging.getLogger("metapl")
"""Where it is said what `force` means."""


class Session(NamedTuple):
    """Runs that differ in their seeds alone, and where they stand."""

    root: Path
    """What a command names: the folder of the run, or that of several runs."""
    experiments: list[Experiment]
    folders: list[Held]
    since: Mapping[int | None, Stored]
    """Where they stand, by the index of the run; of None for all together."""
    finished: frozenset[int] = frozenset()
    """The indices of those that are over."""

    @property
    def seconds(self) -> float:
        """That the runs have taken so far."""
        return max((one.seconds for one in self.since.values()), default=0.0)

    @property
    def alone(self) -> bool:
        """Whether it is one run that stands for itself."""
        return self.folders[0].path == self.root

    def summaries(self) -> dict[int, dict[str, Any]]:
        """What is known of the runs that are over, by their indices."""
        return {place: run_files.summary(self.folders[place].path / run_files.SUMMARY) for place in self.finished}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block nobody else writes to the folders; after it others may."""
        with ExitStack() as stack:
            for folder in self.folders:
                stack.enter_context(folder)
            yield

    @property
    def seeds(self) -> list[int]:
        """Of the runs."""
        return [one.config.seed for one in self.experiments]


def begin(experiments: Sequence[Experiment], folders: Sequence[Path], root: Path) -> Session:
    """Make the folders of new runs, `root` or below it, and write what is known before training.

    Raises:
        InputError: a folder that holds something, or cannot be made.
    """
    known = fingerprint.fingerprint(experiments[0].data)
    with ExitStack() as stack:
        held = []
        for folder in folders:
            _make(folder)
            held.append(stack.enter_context(Held(folder)))
        for one, folder in zip(experiments, folders, strict=True):
            run_folder.save_start(folder, one, known)
        stack.pop_all()
    return Session(root, list(experiments), held, {})


def require_new(folder: Path) -> None:
    """Refuse the folder of a run that is there, before anything is computed for it.

    Raises:
        InputError: anything but an empty folder, or one in which a process was killed over its first file.
    """
    if (folder / "config.toml").is_file() and not _is_finished(folder):
        raise InputError(
            f"out = {folder} holds a run that is not finished: `metapl train --resume {shlex.quote(str(folder))}` goes "
            "on with it; or name a new folder, or remove this one",
            "out",
        )
    if folder.exists() and not _is_half_made(folder):
        raise InputError(f"out = {folder} exists already: name a new folder, or remove this one", "out")


def _is_half_made(folder: Path) -> bool:
    """Whether a process was killed in it before or over its first file."""
    return folder.is_dir() and all(one.match(".config.toml.*.tmp*") for one in folder.iterdir())


def _make(folder: Path) -> None:
    """Make the folder of a run; an empty one, or one with half a first file, counts for nothing."""
    require_new(folder)
    if _is_half_made(folder):
        state_files.clean_half(folder)
        with suppress(OSError):
            folder.rmdir()
    run_folder.create(folder)


def resume(
    experiments: Sequence[Experiment],
    folders: Sequence[Path],
    root: Path,
    configs: tuple[TrainConfig, TrainConfig],
    spare: str = "",
    force: bool = False,
) -> Session | None:
    """Have runs go on where they stopped.

    Args:
        experiments: of the runs, with the configuration of now.
        folders: of the runs, one for each.
        root: the folder of the run, or of several.
        configs: the configuration that they have, but for the seed, and the one that they are to go on with.
        spare: the folder for states that the runs' own folders could not take.
        force: go on although something is not what it was.

    Returns:
        The runs; None where all are finished.

    Raises:
        InputError: a folder that another process writes to; data, configuration or versions that are not what they
            were, unless `force`; states of other runs.
    """
    with ExitStack() as stack:
        held = [stack.enter_context(_hold(folder)) for folder in folders]
        since = _stand(experiments, folders, spare, configs[1].seed - configs[0].seed)
        known = fingerprint.fingerprint(experiments[0].data)
        changed = changes.all_of(folders[0], experiments[0], configs, known, next(iter(since.values()), None))
        other = _require_same(changed, folders[0], force) or bool(changes.differing(*configs))
        finished = frozenset(place for place, folder in enumerate(folders) if not other and _is_finished(folder))
        if len(finished) == len(folders):
            for folder in folders:
                state_files.remove(state_files.states(folder)[max((one.keep for one in since.values()), default=0) :])
            return None
        if not any(place is not None for place in since):  # they trained together, or nobody can say
            finished = frozenset()
        for place, (one, folder) in enumerate(zip(experiments, folders, strict=True)):
            stands = since.get(None) or since.get(place)
            if place not in finished:
                _go_back(folder, one, stands)
            if other or not (folder / "fingerprint.json").exists():
                run_folder.save_start(folder, one, known)
        stack.pop_all()
    return Session(root, list(experiments), held, since, finished)


def _is_finished(folder: Path) -> bool:
    return (folder / run_files.SUMMARY).is_file()


def _require_same(changed: Sequence[str], folder: Path, force: bool) -> bool:
    """Refuse to go on with something that is not what it was, unless that is forced; whether it is."""
    if changed and not force:
        raise InputError(
            f"{folder} cannot go on to the numbers that it would have had: {'; '.join(changed)}: restore that, or give "
            "--force to go on to others"
        )
    if changed:
        LOG.warning("--force: no run from its beginning has the numbers that follow: %s", "; ".join(changed))
    return bool(changed)


def _hold(folder: Path) -> Held:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): name the folder of a run") from None
    held = Held(folder)
    state_files.clean_half(folder)
    with suppress(OSError):
        os.utime(folder / "metrics.jsonl")  # `metapl status` counts from now on how long nothing is written
    return held


def _stand(
    experiments: Sequence[Experiment], folders: Sequence[Path], spare: str, moved: int
) -> dict[int | None, Stored]:
    """Where each run stands, or all together; their seeds were less by `moved`."""
    found: dict[int | None, Stored] = {}
    seeds = tuple(one.config.seed - moved for one in experiments)
    for place, folder in enumerate(folders):
        one = state_files.newest(folder, *state_files.spare(folder, spare))
        if one is None:
            continue
        if one.seeds not in (seeds, seeds[place : place + 1]):
            there = " ".join(map(str, one.seeds))
            raise InputError(f"{folder} has states of the seeds {there}: take as many processes as there were then")
        _require_networks(one, experiments[place], folder)
        found[None if one.seeds == seeds else place] = one
        if one.seeds == seeds:
            break
    return {**found, 0: found[None]} if len(seeds) == 1 and None in found else found


def _require_networks(found: Stored, experiment: Experiment, folder: Path) -> None:
    """Refuse networks of phases before that are not those of the configuration."""
    for name, network in found.networks.items():
        if name not in run_files.NETWORKS:
            raise InputError(f"{folder} has a state with the network {name!r}, which nothing here knows")
        one = population.member(network, 0) if len(found.seeds) > 1 else network
        fitting.require_network(name, one, experiment.config, experiment.data.form, str(folder))


def _go_back(folder: Path, experiment: Experiment, stored: Stored | None) -> None:
    """Have the files of a run be what they were when its state was stored."""
    if _is_finished(folder) and stored is None:
        raise InputError(f"{folder} is finished, and has no state to go on from: --keep 1 leaves the last one")
    (folder / run_files.SUMMARY).unlink(missing_ok=True)
    plan = methods.lengths(experiment.config)
    before = {} if stored is None else {name: plan[name] for name in [*plan][: [*plan].index(stored.phase)]}
    at = (stored.phase, stored.step) if stored else ("", 1)
    loggers.rewind(folder, before, *at, every=experiment.config.report_every)
