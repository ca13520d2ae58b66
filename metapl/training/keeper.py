"""Stores where a run stands, from time to time and wherever it is stopped.

States are pure values that nobody writes to, so a thread can write one to the disk while the next steps are taken, and
what is stored when a run is stopped in the middle of a step is the state before that step.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from metapl.core import tree
from metapl.files import storage
from metapl.files.lock import Held
from metapl.methods.base import Networks
from metapl.registry.errors import InputError
from metapl.training import loop, phases, population, run_folder, stored
from metapl.training.keeping import Keeping
from metapl.training.session import Session
from metapl.training.state_files import STATES, clean_half, follow, named, remove, spare, states
from metapl.training.stored import Stored

LOG = logging.getLogger("metapl")
"""Where it is said that a state could not be written."""

TIME_IS_OVER = 75
"""Exit code of a run that `--time-limit` stops: that of "try again later" (EX_TEMPFAIL of sysexits.h)."""

LEAST = 2
"""States that stay while a run goes on: if the last one cannot be read any more, the one before it is used."""


class Stopped(BaseException):
    """A run is stopped from outside. It is no `Exception`, so nothing takes it for a fault of what was going on."""

    def __init__(self, why: str, code: int) -> None:
        self.code = code
        super().__init__(why)


class Keeper:
    """Follows the events of one run, or of several that train together or one after another; a context manager.

    Args:
        session: the runs. What trains together is stored in the folder of the first.
        lengths: the steps of each phase, in order.
        keeping: when to store, how many states, and where else.
        made_with: versions and machine.
        started: the `time.perf_counter()` at which the runs began; of those that go on it is that much earlier.
    """

    def __init__(
        self,
        session: Session,
        lengths: Mapping[str, int],
        keeping: Keeping,
        made_with: dict[str, Any],
        started: float,
    ) -> None:
        self._session, self._keeping, self._made_with, self._started = session, keeping, made_with, started
        self._before = dict(zip(lengths, itertools.accumulate(lengths.values(), initial=0), strict=False))
        self._member: int | None = None
        self._networks: Networks = {}
        self._coming: tuple[int | None, Networks] = None, {}
        self._at: loop.Stepped | None = None
        self._last = time.monotonic()
        self._writer = ThreadPoolExecutor(1, "metapl-states")
        self._writing: Future[str] | None = None
        self._failing = False
        found = [_words(one, lengths.get(one.phase, one.step)) for one in session.since.values()]
        self.since = found[0] if found else ""
        """The phase and the step of the state that the runs go on from, in words; empty if there is none."""
        self.kept = ""
        """Those of the last state that was written."""

    def __enter__(self) -> Keeper:
        """Nothing is to be stored yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Store where the run stands if something has stopped it, and wait until that is written."""
        self._settle()
        if kind is not None:
            self.store()
        self._writer.shutdown()

    def store(self) -> None:
        """Store where the run stands, and wait until that is written; nothing if it stands where it began."""
        self._store()
        self._settle()

    def see(self, member: int | None, event: phases.Event | population.Apart) -> None:
        """Take note of an event, and store the state if it is time to.

        Args:
            member: the index of the run; None for all together.
            event: of it.

        Raises:
            Stopped: the time limit is over; the state is stored on the way out.
        """
        match event:
            case phases.Began(_, networks):
                self._coming = member, networks
                if member != self._member:  # the run before is over
                    self._settle()
                    self._at = None
            case loop.Stepped():
                (self._member, self._networks), self._at = self._coming, event
                if self._due(event):
                    self._store()
                # Reading the data and comparing methods count too: a batch system counts them.
                if time.perf_counter() - self._started - self._session.seconds >= self._keeping.limit:
                    raise Stopped(f"--time-limit {self._keeping.time_limit} is over", TIME_IS_OVER)
            case population.Apart():
                self._at = None
                self._forget(0)

    def _due(self, at: loop.Stepped) -> bool:
        """Whether to store this step; never while the last state is still being written."""
        if self._writing is not None and not self._writing.done():
            return False
        every = self._keeping.interval
        return bool(every.steps and at.step % every.steps == 0) or 0 < every.seconds <= time.monotonic() - self._last

    def _store(self) -> None:
        """Have the thread write where the run stands."""
        self._settle()
        at, seconds = self._at, time.perf_counter() - self._started
        if at is None:
            return
        seeds = self._session.seeds if self._member is None else [self._session.seeds[self._member]]
        found = stored.of(at, self._networks, seconds, seeds, self._made_with)._replace(keep=self._keeping.keep)
        self._last = time.monotonic()
        self._writing = self._writer.submit(self._write, found, _words(found, at.steps))

    def _write(self, found: Stored, words: str) -> str:
        """Write a state, and remove the oldest; the words for it, or none if it is worth nothing."""
        # Of several runs one may have no finite numbers any more, and the others go on.
        if self._session.alone and not all(_finite(leaf) for leaf in tree.leaves((found.state, found.networks))):
            return ""
        for one, experiment in zip(self._session.folders, self._session.experiments, strict=True):
            with suppress(OSError):  # a log is there from the first report on
                storage.flush(one.path / "metrics.jsonl")
            if not (one.path / "config.toml").exists():  # somebody has removed it, and nothing goes on without
                with suppress(InputError):
                    run_folder.save_start(one.path, experiment)
        name = named(self._before[found.phase] + found.step)
        folder = self._session.folders[self._member or 0]
        places = self._places(folder)
        self._put(found, places, name)
        follow(name, places[0], folder.path)
        return words

    def _put(self, found: Stored, places: Sequence[Path], name: str) -> None:
        """Write a state to the first of these folders that takes it, and remove the oldest ones in all of them."""
        for place in places:
            try:
                stored.write(place / STATES / name, found)
            except InputError:
                if place == places[-1]:
                    raise
            else:
                break
        remove(states(*places)[max(LEAST, self._keeping.keep) :])

    def _places(self, folder: Held) -> list[Path]:
        """Where the states of a run may be."""
        return [folder.path, *spare(folder.path, self._keeping.spare)]

    def _settle(self) -> None:
        """Wait for what is being written. A state that could not be is said once; the next one is another attempt."""
        if self._writing is None:
            return
        try:
            self.kept = self._writing.result() or self.kept
            self._failing = False
        except Exception as error:  # whatever it is, the training is worth more
            if not self._failing:
                LOG.warning("a state of the run is not stored, and the one before stays: %s", error)
            self._failing = True
        finally:
            self._writing = None

    def over(self) -> None:
        """The runs are finished: remove their states but for those that are to stay."""
        self._at = None
        self._forget(self._keeping.keep)
        for folder in self._session.folders:
            clean_half(folder.path)  # a write may have been going on while somebody renamed it

    def _forget(self, keep: int) -> None:
        self._settle()
        for folder in self._session.folders:
            remove(states(*self._places(folder))[keep:])


def _words(found: Stored, steps: int) -> str:
    return f"step {found.step} of {steps} of {found.phase}"


def _finite(leaf: Tensor) -> bool:
    return not leaf.is_floating_point() or bool(torch.isfinite(leaf).all())
