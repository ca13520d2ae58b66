"""`metapl train` of one run in several processes of torchrun: process 0 does what one alone does, the others follow."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import typer

from metapl.cli.streams import INTERRUPTED, Spoken
from metapl.cli.tell import tell
from metapl.core.collectives import require_same
from metapl.data import fingerprint
from metapl.registry.errors import InputError
from metapl.training import experiment, loop, population, watching
from metapl.training.experiment import Experiment
from metapl.training.keeper import Stopped
from metapl.training.session import Session
from metapl.training.together import Group

LOG = logging.getLogger("metapl")
"""Where it is said that the last digits will differ."""


def lead(group: Group, session: Session | None) -> Session | None:
    """The session of process 0, shared with the others; None where there is nothing to train, as they are told too.

    Raises:
        InputError: a process has other data than this one.
    """
    group.told(None if session is None else (session.experiments[0].config, session.since))
    if session is None:
        return None
    (one,) = session.experiments
    _say_of_digits(session, group.processes.count)
    shared = experiment.assemble(one.config, one.data, one.split, group.processes)._replace(varied=one.varied)
    _require_same(shared)
    return session._replace(experiments=[shared])


def follow(group: Group) -> None:
    """Train what process 0 trains, and write nothing.

    Raises:
        InputError: what is wrong in this process and not in process 0.
    """
    group.late = partial(_say, group)
    with _quiet(group):
        told = group.told()
        if told is None:
            return
        config, since = told
        one = experiment.prepare(config, processes=group.processes)
        _require_same(one)
        for _, event in population.train_all([one], since=since, strict=True):
            if isinstance(event, loop.Reported):
                watching.look(one, event)  # evaluation is shared out too


def _require_same(one: Experiment) -> None:
    known = json.dumps(fingerprint.fingerprint(one.data)).encode()
    require_same(one.processes, "data", torch.frombuffer(bytearray(known), dtype=torch.uint8))
    require_same(one.processes, "split", tuple(one.split))


def _say_of_digits(session: Session, count: int) -> None:
    for found in [*session.since.values()][:1]:
        then = found.made_with.get("processes", 1)
        if then != count:
            LOG.warning("%s processes stored the state and %d go on: other last digits are to be expected", then, count)


@contextmanager
def _quiet(group: Group) -> Iterator[None]:
    """Say only what process 0 does not say."""
    try:
        yield
    except Stopped as stopped:
        _say(group, stopped)
        raise typer.Exit(stopped.code) from None
    except KeyboardInterrupt:
        raise typer.Exit(Spoken(INTERRUPTED)) from None
    except InputError as error:
        if str(error) in group.others_say():
            raise typer.Exit(2) from None
        raise InputError(f"{group.name}: {error}", *error.fields) from None


def _say(group: Group, stopped: Stopped) -> None:
    """Say why this process ends, where process 0 cannot."""
    if group.leaderless():
        tell(f"metapl: {group.name}: {stopped}")
