"""The processes that torchrun has started, where they train one run together: how they meet, and how they part.

Each process tells the others that it is alive, every few seconds, by a thread of its own. So a process may take as long
as it likes over a step or over its data, and one that has died, or that stands still, is known by name after `GONE`
seconds. The messages go through the store by which the processes have met.
"""

from __future__ import annotations

import datetime
import os
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from metapl.core.collectives import Processes
from metapl.training.keeper import TIME_IS_OVER, Stopped

PATIENCE = datetime.timedelta(hours=1)
"""How long a process waits for another one that is alive."""

BEAT, GONE = 1.0, 20.0
"""Seconds between signs of life, and without any."""

GRACE = 2.0
"""Seconds in which the main thread may find out by itself that a process is gone; then another one ends the process."""


class Group:
    """The processes, met, until the end of the block; a context manager.

    A process that leaves by an error says so to the others, whose next sum then raises `Stopped`.
    """

    def __init__(self) -> None:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        # Not by the environment: processes that are started again would find the addresses of those before.
        store = _store(rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True")
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
        self.processes = Processes(rank, count, self._reduce)
        self.late: Callable[[Stopped], object] = lambda stopped: None  # noqa: ARG005
        """What a thread does before it ends a process whose main thread waits for one that is gone."""
        self._pulse = _Pulse(self.processes.rank, self.processes.count, self._end)

    def told(self, value: Any = None) -> Any:
        """What process 0 calls this with, in every process."""
        found = [value]
        try:
            dist.broadcast_object_list(found, src=0)
        except RuntimeError as error:
            raise self._stopped(error) from None
        return found[0]

    @property
    def name(self) -> str:
        """Of this process, in words."""
        return f"process {self.processes.rank} of {self.processes.count}"

    def leaderless(self) -> bool:
        """Whether it is process 0 that is gone, without a word."""
        return bool(self._pulse.why) and 0 in self._pulse.silent

    def others_say(self) -> str:
        """What another process has said before it left, which is waited for a moment; empty if none has left."""
        self._pulse.gone.wait(3.0 * BEAT)
        return self._pulse.why

    def _reduce(self, flat: Tensor) -> Tensor:
        try:
            dist.all_reduce(flat)
        except RuntimeError as error:
            raise self._stopped(error) from None
        return flat

    def _stopped(self, error: RuntimeError) -> Stopped:
        """Who is gone, as soon as that is known."""
        self._pulse.noticed.set()
        self._pulse.gone.wait(GONE + 5.0 * BEAT)
        return Stopped(self._pulse.why or str(error).splitlines()[0], TIME_IS_OVER)

    def _end(self, why: str) -> None:
        """End the process while its main thread waits for one that is gone."""
        try:
            self.late(Stopped(why, TIME_IS_OVER))
        finally:
            os._exit(TIME_IS_OVER)

    def __enter__(self) -> Group:
        """The processes have met already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the others that this process leaves, and why."""
        self._pulse.leave("" if error is None else f"has stopped ({_in_words(error)})")
        if error is None:
            dist.destroy_process_group()


def _store(is_master: bool) -> dist.Store:
    """A connection of its own to the store of these processes, and not of those that were started before them."""
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(*place, is_master=is_master, timeout=PATIENCE, wait_for_workers=False, multi_tenant=True)
    return dist.PrefixStore(f"metapl/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _in_words(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class _Pulse:
    """Tells others that this process is alive, and finds out which others are not."""

    def __init__(self, rank: int, count: int, end: Callable[[str], None]) -> None:
        self.gone, self.noticed, self.why = threading.Event(), threading.Event(), ""
        self._rank, self._count, self._end = rank, count, end
        self.silent: list[int] = []
        """The processes that have given no sign of life; of those that this one looks after."""
        self._store = _store(False)  # since a call that waits holds up all others of the same connection
        self._store.set(f"name/{rank}", f"{socket.gethostname()}, pid {os.getpid()}")
        self._store.add(f"beat/{rank}", 1)
        dist.barrier()  # now all have a name and a first sign of life
        others = range(1, count) if rank == 0 else range(1)
        self._last = {one: (0, time.monotonic()) for one in others}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="metapl-pulse", daemon=True)
        self._thread.start()

    def leave(self, how: str) -> None:
        """No more signs of life; the others know why."""
        self._over.set()
        self._thread.join()
        try:
            self._store.set(f"left/{self._rank}", how)
            if how:
                self._store.set("why", f"process {self._rank} of {self._count} {how}")
        except RuntimeError:  # the store was with a process that has gone
            pass

    def _watch(self) -> None:
        while not self.why and not self._over.wait(BEAT):
            try:
                self._store.add(f"beat/{self._rank}", 1)
                self.why = self._found()
            except RuntimeError:
                self.silent, self.why = [0], f"process 0 of {self._count}, or the torchrun that started it, is gone"
        if not self.why:
            return
        self.gone.set()
        if not self.noticed.wait(GRACE) and not self._over.is_set():
            self._end(self.why)

    def _found(self) -> str:
        """Who is gone, in words; empty if nobody is. Process 0 looks after all others, and they after process 0."""
        if self._store.check(["why"]):
            return self._text("why")
        self.silent = silent = [one for one in self._last if self._silence(one) > GONE]
        if not silent:
            return ""
        names = [f"process {one} of {self._count} ({self._text(f'name/{one}')})" for one in silent[:3]]
        more = f" and {len(silent) - 3} more" if len(silent) > 3 else ""
        why = f"no sign of life from {', '.join(names)}{more} for {GONE:.0f} s"
        self._store.set("why", why)
        return why

    def _silence(self, other: int) -> float:
        """Seconds since the last sign of life of another process; none of one that is through."""
        beats, since = self._last[other]
        now = self._store.add(f"beat/{other}", 0)
        if now != beats or self._store.check([f"left/{other}"]):
            self._last[other] = (now, time.monotonic())
            return 0.0
        return time.monotonic() - since

    def _text(self, key: str) -> str:
        found: bytes = self._store.get(key)
        return found.decode(errors="replace")
