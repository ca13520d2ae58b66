"""Signals that stop a run: it stores where it stands and says how to go on, in place of dying."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Iterator
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


@contextmanager
def heeded() -> Iterator[None]:
    """Within the block the first of these signals raises `Stopped`, wherever the program is; later ones are ignored.

    A step changes nothing that was there before it, so it may be left in the middle. A signal that is ignored already,
    as `nohup` has it, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # where Python takes no handlers
        return
    wanted = [getattr(signal, name) for name in HEEDED]
    before = {one: signal.getsignal(one) for one in wanted}
    heard = [one for one in wanted if before[one] != signal.SIG_IGN]

    def stop(number: int, frame: Any) -> None:
        del frame
        for one in heard:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped(f"stopped by {signal.Signals(number).name}", 128 + number)

    for one in heard:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one in heard:
            signal.signal(one, before[one])


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


def _way_on(folder: Path, keeper: Keeper) -> str:
    command = f"`metapl train --resume {shlex.quote(str(folder))}`"
    return f"{keeper.kept} is stored, {command} goes on" if keeper.kept else f"{command} begins it again"
