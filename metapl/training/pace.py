"""Says where one step of a run took far longer than the others: a disk that did not answer, a machine that stood still.

A call that never returns says nothing; `metapl.training.progress` tells of it from outside.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Iterator

from metapl.training import loop, phases, population

LOG = logging.getLogger("metapl")
"""Where it is said."""

LEAST = 60.0
"""Seconds that a step takes at least to be told of."""

TIMES = 50
"""It takes so many times as long as the median of the steps before."""

FEWEST, MOST = 10, 101
"""Steps of which the median is taken: the last ones of the phase. The first have costs of their own, so a few of them
are no measure."""


def watched(events: Iterator[population.Event]) -> Iterator[population.Event]:
    """The same events; the log `metapl` has a warning after a step that took far longer than those before it.

    A step is measured with the reading of its batch, and without what is done with its event. After a warning the
    median is taken anew, so that a run that stays slow says so once.
    """
    recent: deque[float] = deque(maxlen=MOST)
    since = time.perf_counter()
    for member, event in events:
        match event:
            case phases.Began():
                recent.clear()
            case loop.Stepped(phase, step):
                took = time.perf_counter() - since
                if took > LEAST and len(recent) >= FEWEST and took > TIMES * (usual := statistics.median(recent)):
                    LOG.warning(
                        "step %d of %s took %.0f s, where %.3g s is usual: was the disk, the machine or the network "
                        "held up?",
                        *(step, phase, took, usual),
                    )
                    recent.clear()
                else:
                    recent.append(took)
        yield member, event
        since = time.perf_counter()
