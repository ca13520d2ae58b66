"""The probability of each class before an example is seen: uniform, that of the labelled examples, or from a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metapl.files import storage
from metapl.registry.errors import InputError, unknown

NAMED = ("estimated", "uniform", "labelled")
"""What is no file."""

EVEN = 4.0
"""So many examples of each class are added to the labelled ones for an estimated prior."""


def estimated(counts: Tensor) -> Tensor:
    """(counts + `EVEN`) / Σ (counts + `EVEN`), `[classes]`, float64: the labelled shares, pulled towards equal ones.

    It is the mean of a Dirichlet posterior. Equal counts, as in a balanced split, give equal shares. Few labels say
    little of the shares, and many say nearly all that is to be known.
    """
    found = counts.double() + EVEN
    return found / found.sum()


OFF = 0.01
"""How far from 1 the sum of a file may be, for rounded numbers; the prior is normalised."""


def read(path: Path, classes: Sequence[str]) -> Tensor:
    """A prior `[classes]`, float64, from a JSON object or from lines of a class and its probability.

    Raises:
        InputError: it cannot be read, a class is missing, unknown or named twice, a probability is not above 0, or the
            sum is not 1.
    """
    try:
        text = storage.read_text(path)
    except FileNotFoundError:
        raise _refused(f"prior = {path} is no file: name one, or choose from {', '.join(NAMED)}") from None
    except OSError as error:
        raise _refused(f"prior = {path} cannot be read ({error.strerror}): name another file") from None
    try:
        pairs = list(storage.parse_json(text).items()) if text.lstrip().startswith("{") else _lines(text)
        found = [(str(name), float(value)) for name, value in pairs]
    except (ValueError, TypeError, AttributeError) as error:
        message = f"prior = {path} cannot be read ({error}): give a JSON object or lines of class and probability"
        raise _refused(message) from None
    given = dict(found)
    if len(given) < len(found):
        raise _refused(f"prior = {path} names a class twice: leave one of them out")
    for name, value in found:
        if name not in classes:
            raise unknown(f"class in prior = {path}", name, classes)
        if not (math.isfinite(value) and value > 0):
            raise _refused(f"prior = {path}: the probability of {name!r} is {value}: give a number above 0")
    if missing := [name for name in classes if name not in given]:
        raise _refused(
            f"prior = {path} has no probability of {missing[0]!r}: give one for each of {len(classes)} classes"
        )
    if abs(sum(given.values()) - 1.0) > OFF:
        raise _refused(f"prior = {path} sums to {sum(given.values()):.4g}: give probabilities that sum to 1")
    prior = torch.tensor([given[name] for name in classes], dtype=torch.float64)
    return prior / prior.sum()


def _refused(message: str) -> InputError:
    return InputError(message, "prior")


def _lines(text: str) -> list[tuple[str, str]]:
    """Each line is a class, which may have spaces in its name, and a probability."""
    found = []
    for line in filter(str.strip, text.splitlines()):
        name, _, value = line.strip().replace("\t", " ").rpartition(" ")
        found.append((name.strip(), value))
    return found
