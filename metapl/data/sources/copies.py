"""Copies and groups of examples, which must not be on both sides of the test: what is done about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metapl.core import rng
from metapl.data import groups as together
from metapl.data.notes import CAREFUL, Note, some
from metapl.data.sources.held_out import hold_out
from metapl.registry.errors import InputError

WAYS = ("auto", "drop", "keep")
"""What may be done about copies: keep them on one side or report them, leave them out of the training, nothing."""


class Marks(NamedTuple):
    """What tells labelled examples apart, `[examples]` each."""

    names: Sequence[object]
    digests: Sequence[bytes | None]
    """Equal for copies; None where an example is known to have none."""
    groups: Tensor | None
    """None where no groups are known."""


class Apart(NamedTuple):
    """Which labelled examples are for what."""

    train: Tensor
    """Indices, int64, ascending."""
    test: Tensor
    """The same; nothing where the test set was given."""
    groups: Tensor | None
    """Of `train`; None where none belong together."""
    notes: list[Note]


def require_way(way: str) -> None:
    """Check the option `copies`.

    Raises:
        InputError: it is none of `WAYS`.
    """
    if way not in WAYS:
        raise InputError(f"copies={way} must be {', '.join(WAYS[:-1])} or {WAYS[-1]}")


def apart(y: Tensor, marks: Marks, others: Sequence[bytes | None] | None, share: float, way: str) -> Apart:
    """Hold out a share of every class, the same for every seed, or compare with the sets that are given.

    Args:
        y: class indices `[examples]`, −1 where nobody knows.
        marks: of the examples.
        others: digests of the test and the validation set; None where there is none and a share is held out.
        share: of every class.
        way: one of `WAYS`.

    Raises:
        InputError: what `hold_out` refuses.
    """
    group = together.joined(together.numbered(marks.digests), marks.groups)
    if others is None:
        kept, held, notes = _held_out(y, marks, group, share)
    else:
        known = [digest for digest in others if digest]
        copied = together.shared([digest or b"" for digest in marks.digests], known)
        kept, held = (~copied).nonzero()[:, 0] if way == "drop" else torch.arange(len(y)), torch.arange(0)
        notes = _reported([marks.names[place] for place in copied.nonzero()[:, 0].tolist()], way)
    return Apart(kept, held, None if group is None else group[kept], notes)


def _held_out(y: Tensor, marks: Marks, group: Tensor | None, share: float) -> tuple[Tensor, Tensor, list[Note]]:
    try:
        kept, held = hold_out(y, share, rng.key(0), group)
    except InputError:
        if marks.groups is not None:
            raise
        kept, held = hold_out(y, share, rng.key(0))
        said = [Note(CAREFUL, "test examples are copies of training examples, for every class has the same ones")]
        return kept, held, said if group is not None else []
    return kept, held, _counted(marks, len(y) - len(kept) - len(held))


def _counted(marks: Marks, left: int) -> list[Note]:
    more = sum(count - 1 for count in Counter(digest for digest in marks.digests if digest).values())
    notes = [Note("copies", f"{more:,} examples are copies of others, all on one side of the test")] if more else []
    if marks.groups is not None:
        notes.append(Note("groups", f"{len(marks.groups.unique()):,}, each on one side of the test"))
    return notes + ([Note("left out", f"{left:,} examples without a label of groups in the test")] if left else [])


def _reported(names: Sequence[object], way: str) -> list[Note]:
    if not names:
        return []
    text = f"{len(names):,} labelled training examples are copies of test or validation examples ({some(names, 2)})"
    if way == "drop":
        return [Note("left out", text)]
    return [Note(CAREFUL, f"{text}: copies=drop leaves them out, copies=keep says nothing")]


def repeated(x: Tensor, x_test: Tensor) -> list[Note]:
    """What is to be said of rows of numbers, of which equal ones need not be copies."""
    both = int(together.shared(together.digests(x_test), together.digests(x)).sum())
    return [Note("copies", f"{both:,} of {len(x_test):,} test examples are also in the training pool")] if both else []
