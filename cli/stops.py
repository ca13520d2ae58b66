"""Signals that stop a run: it stores where it stands and says how to go on, in place of dying."""

from __future__ import annotations

import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from metapl.cli.streams import INTERRUPTED, Spoken
from metapl.cli.tell import tell
from metapl.registry.errors import InputError
from metapl.training.keeper import Keeper, Stopped

HEEDED = ("SIGTERM", "SIGUSR1", "SIGHUP")
"""Of batch systems and terminals, beside the SIGINT of the keyboard, which Python raises by itself."""

GRACE = 4.0
"""Seconds in which Python hears of a signal. One call into torch, such as the backward pass of a large step, can take
longer; then another thread ends the process."""


@contextmanager
def heeded(late: Callable[[Stopped], None]) -> Iterator[None]:
    """Within the block the first of these signals raises `Stopped`, wherever the program is; later ones are ignored.

    A step changes nothing that was there before it, so it may be left in the middle. A signal that is ignored already,
    as `nohup` has it, stays so.

    Args:
        late: called by another thread where the program has not heard of the signal after `GRACE` seconds; then the
            process ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # where Python takes no handlers
        return
    before = {one: signal.getsignal(one) for one in (getattr(signal, name) for name in HEEDED)}
    heard = [one for one, handler in before.items() if handler != signal.SIG_IGN]
    first = threading.Lock()
    """Held by the one that ends the run."""

    def stop(number: int, frame: Any) -> None:
        del frame
        while not first.acquire(blocking=False):
            time.sleep(GRACE)  # the other thread is ending the process
        for one in heard:
            signal.signal(one, signal.SIG_IGN)
        raise _stopped(number)

    for one in heard:
        signal.signal(one, stop)
    try:
        with _watched(heard, first, late):
            yield
    finally:
        for one in heard:
            signal.signal(one, before[one])


def _stopped(number: int) -> Stopped:
    return Stopped(f"stopped by {signal.Signals(number).name}", 128 + number)


@contextmanager
def _watched(heard: list[Any], first: threading.Lock, late: Callable[[Stopped], None]) -> Iterator[None]:
    """Within the block a thread is told of signals at once, by the pipe into which the interpreter writes them."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        while (number := os.read(reading, 1)[0]) not in (0, *heard):
            pass
        until = time.monotonic() + GRACE
        while number and not first.locked() and time.monotonic() < until:
            time.sleep(0.05)
        if number and first.acquire(blocking=False):
            try:
                late(_stopped(number))
            finally:
                os._exit(128 + number)

    thread = threading.Thread(target=watch, name="metapl-signals", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writing, b"\0")
        thread.join()
        for end in (reading, writing):
            os.close(end)


@contextmanager
def reported(folder: Path, keeper: Keeper) -> Iterator[None]:
    """Where the block is stopped, say what is stored and how the run goes on; bad input stays one line."""
    try:
        yield
    except Stopped as stopped:
        tell(f"metapl: {stopped}: {_way_on(folder, keeper)}")
        raise typer.Exit(stopped.code) from None
    except KeyboardInterrupt:
        tell(f"metapl: interrupted: {_way_on(folder, keeper)}")
        raise typer.Exit(Spoken(INTERRUPTED)) from None
    except InputError as error:
        raise InputError(f"{error}; {_way_on(folder, keeper)}" if keeper.kept else str(error), *error.fields) from None
    except Exception:
        tell(f"metapl: {_way_on(folder, keeper)}")
        raise


def late(folder: Path, keeper: Keeper) -> Callable[[Stopped], None]:
    """What `heeded` does late: store, and say the same as `reported`."""

    def end(stopped: Stopped) -> None:
        keeper.store()
        tell(f"metapl: {stopped}: {_way_on(folder, keeper)}")

    return end


def _way_on(folder: Path, keeper: Keeper) -> str:
    command = f"`metapl train --resume {shlex.quote(str(folder))}`"
    kept = keeper.kept or keeper.since
    return f"{kept} is stored, {command} goes on" if kept else f"{command} begins it again"


@contextmanager
def beginning(resumed: Path | None) -> Iterator[None]:
    """While a run is prepared and methods are compared for it nothing is stored: say so where that is stopped.

    Args:
        resumed: the folder of a run that is to go on.
    """
    same = f"`metapl train --resume {shlex.quote(str(resumed))}` goes on" if resumed else "the same command begins it"

    def say(stopped: Stopped) -> None:
        tell(f"metapl: {stopped}, before the first step: {same}")

    try:
        with heeded(say):
            yield
    except Stopped as stopped:
        say(stopped)
        raise typer.Exit(stopped.code) from None
