"""Which carries of a loop are kept on the way there, and where: the memory and the time of going back.

A plan divides the steps into segments, level by level. The carry before each segment is kept; on the way back each
segment is run again when it is its turn, by the next level, and the segments of the last level are recorded whole.
With F and B the passes of a step, going back costs 2 F + 2 B for its double backward, and F + B more for each level.

| for K steps | carries kept | graphs of steps | levels |
| --- | --- | --- | --- |
| `everything()` | K | 1 | 1 |
| `every(n)` | K / n | n | 1 |
| `sqrt()` | 2 √K | 1 | 2 |
| `log()` | 3 log₄ K | 1 | log₄ K |
| `disk(folder, every=n)` | n, and K / n in files | 1 | 2 |

Examples:
    >>> from metapl.core import checkpoints
    >>> for plan in (checkpoints.everything(), checkpoints.every(8), checkpoints.sqrt(), checkpoints.log()):
    ...     print(plan.sizes(300))
    (1,)
    (8,)
    (18, 1)
    (75, 19, 5, 2, 1)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from metapl.registry.errors import InputError, unknown


class Checkpoints(NamedTuple):
    """A plan of what is kept of a loop."""

    sizes: Callable[[int], Sequence[int]]
    """`sizes(steps)`: the steps in a segment, level by level; those in a segment of the last level are recorded."""
    folder: Path | None = None
    """Where the carries of the first level are written; None for memory."""


def everything() -> Checkpoints:
    """Every carry: one more pass of every step, and the memory of K carries and of one recorded step."""
    return Checkpoints(lambda steps: (1,))  # noqa: ARG005


def every(steps: int) -> Checkpoints:
    """Every so-many-th carry, and the steps between two of them recorded whole (Chen et al., 2016).

    The fastest of all plans but for the graphs of so many steps: for small networks, whose steps live on calls.

    Raises:
        ValueError: fewer than one step.
    """
    _require("every", "steps", steps, 1)
    return Checkpoints(lambda count: (min(steps, count),))


def sqrt() -> Checkpoints:
    """Every √K-th carry, and the carries between two of them when it is their turn: two more passes of every step."""
    return Checkpoints(lambda steps: (math.ceil(math.sqrt(steps)), 1))


def log(*, base: int = 4, recorded: int = 1) -> Checkpoints:
    """Segments divided into `base` segments again and again: (base − 1) log K carries, and log K passes of every step.

    `base=2` is bisection: the fewest carries and the most passes. The best plan for as many carries, of which those
    that have had their turn are used again for others, is binomial (Griewank and Walther, ACM TOMS 2000): it takes
    about half as many passes. Here a carry that is kept stays until its level is done, since torch gives back what a
    node of a graph has saved all at once.

    Args:
        base: segments in a segment.
        recorded: steps at the last level that are recorded together, at most: fewer levels, and as many graphs.

    Raises:
        ValueError: a base below 2, or nothing that is recorded.
    """
    _require("log", "base", base, 2)
    _require("log", "recorded", recorded, 1)

    def sizes(steps: int) -> tuple[int, ...]:
        found = [-(-steps // base)]
        while found[-1] > recorded:
            found.append(-(-found[-1] // base))
        return tuple(found)

    return Checkpoints(sizes)


def disk(folder: str | Path, *, every: int, within: Checkpoints | None = None) -> Checkpoints:
    """Every so-many-th carry in a file, and the steps between two of them by another plan: `everything()` unless given.

    The files (safetensors) are in a folder of their own inside of `folder`, which is made if it is not there. They are
    removed with the graph that they belong to. A second derivative takes the carries from memory instead.

    Args:
        folder: on a disk that holds K / `every` carries.
        every: steps from one file to the next.
        within: the plan between two files, in memory.

    Raises:
        ValueError: fewer than one step from file to file.
        InputError: a plan within that is on disk itself; in use, inside of a `torch.func` transform.
    """
    _require("disk", "every", every, 1)
    inner = everything() if within is None else within
    if inner.folder is not None:
        raise InputError("checkpoints.disk(within=…) is a plan in memory, such as checkpoints.log()")

    def sizes(steps: int) -> tuple[int, ...]:
        return (min(every, steps), *inner.sizes(min(every, steps)))

    return Checkpoints(sizes, Path(folder))


CHECKPOINTS: dict[str, Callable[[], Checkpoints]] = {"everything": everything, "sqrt": sqrt, "log": log}
"""The plans that need no number, by name."""


def plan(given: bool | str | Checkpoints) -> Checkpoints:
    """What `scan(checkpoints=…)` takes as a plan: False keeps everything, True is `sqrt()`.

    Raises:
        InputError: an unknown name, or something else.
    """
    if isinstance(given, bool):
        return sqrt() if given else everything()
    if isinstance(given, str):
        if given not in CHECKPOINTS:
            raise unknown("plan of checkpoints", given, CHECKPOINTS)
        return CHECKPOINTS[given]()
    if not isinstance(given, Checkpoints):
        raise InputError(
            f"checkpoints={given!r} is a {type(given).__name__}: give True, 'log', checkpoints.every(8) or another plan"
        )
    return given


def _require(plan: str, name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"checkpoints.{plan}({name}={value}) must be at least {least}")
