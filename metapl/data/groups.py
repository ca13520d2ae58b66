"""Examples that belong together, such as copies or the images of one patient, and must not be on both sides of a split.

Examples:
    >>> import torch
    >>> from metapl.data import groups
    >>> y, members = torch.tensor([0, 0, 0, 0, 0, 0]), torch.tensor([0, 0, 1, 1, 2, 2])
    >>> groups.take(y, {0: 2}, torch.tensor([3, 0, 5, 1, 2, 4]), members).tolist()
    [False, False, True, True, False, False]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor


def numbered(names: Sequence[object]) -> Tensor:
    """A group for each different name, `[examples]`, int64; None is in a group of its own."""
    index: dict[object, int] = {}
    return torch.tensor(
        [index.setdefault((place,) if name is None else name, len(index)) for place, name in enumerate(names)],
        dtype=torch.int64,
    )


def joined(*parts: Tensor | None) -> Tensor | None:
    """Groups such that examples are together if any of the parts says so; None where nobody has company."""
    given = [part for part in parts if part is not None]
    if not given:
        return None
    group = torch.arange(len(given[0]))
    while True:  # each round gives everybody the least number among their company, in every part
        before = group
        for part in given:
            least = torch.full((int(part.max()) + 1,), len(group)).scatter_reduce(0, part, group, "amin")
            group = least[part]
        if torch.equal(before, group):
            break
    return group if len(group.unique()) < len(group) else None


def extended(of_some: Tensor | None, count: int) -> Tensor | None:
    """Groups of the first examples of a pool, with a group for each other one."""
    if of_some is None:
        return None
    return torch.cat([of_some, int(of_some.max()) + 1 + torch.arange(count - len(of_some))])


def digests(x: Tensor | np.ndarray) -> list[bytes]:
    """What tells each example `[examples, ...]` from those that are not the same byte for byte."""
    rows = x.numpy() if isinstance(x, Tensor) else x
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def shared(one: Sequence[bytes], other: Sequence[bytes]) -> Tensor:
    """Which examples of the first are in the second too, `[examples]`, boolean, by their `digests`."""
    known = set(other)
    return torch.tensor([digest in known for digest in one], dtype=torch.bool)


def take(y: Tensor, wanted: Mapping[int, int], order: Tensor, groups: Tensor) -> Tensor:
    """Whole groups, until about as many examples of each class are taken as are wanted.

    Of each class in turn, the groups of its examples in the given order are taken: none that would bring the number
    further from what is wanted than it is, unless there is none yet, and none that would take the last of any class.

    Args:
        y: class indices `[examples]`, −1 where nobody knows.
        wanted: how many by class.
        order: of the examples that may be taken.
        groups: `[examples]`.

    Returns:
        Which are taken, `[examples]`, boolean; those of unknown class who are in a group that is.
    """
    taken = torch.zeros(len(y), dtype=torch.bool)
    left = y[y >= 0].bincount(minlength=max(wanted, default=0) + 1)
    members: dict[int, list[int]] = {}
    for place, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(place)
    has = torch.zeros_like(left)
    for label, count in wanted.items():
        for place in order[y[order] == label].tolist():
            missing = count - int(has[label])
            if missing <= 0:
                break
            company = torch.tensor(members[int(groups[place])])
            each = y[company][y[company] >= 0].bincount(minlength=len(left))
            spare = not ((left - each == 0) & (each > 0)).any()
            near = int(each[label]) - missing <= missing or not has[label]
            if not taken[place] and spare and near:
                taken[company] = True
                has, left = has + each, left - each
    return taken
