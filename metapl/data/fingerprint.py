"""What tells one data set from another: kept with a run, so that other data is noticed when it is read again.

Of labels, and of examples in memory, every byte counts. Of examples that are read when they are asked for, such as many
image files, `SAMPLE` evenly spaced ones count, since reading all of them would take as long as training on them: one
file that changed among many may go unseen there, another number of files or other labels do not.

Numbers that a machine computes, such as standardised ones, differ in their last digits on another. So where bytes of
floating-point examples differ, weighted sums of them are compared, within what rounding can do.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metapl.data.examples import Examples
from metapl.data.formats.images import evenly
from metapl.data.sources.base import Dataset
from metapl.files import schema

SAMPLE = 256
"""Examples that are read, of those that are not in memory."""

FREQUENCIES = (1.0, math.sqrt(2), math.sqrt(3), math.pi)
"""Of the weights of the sums, cosines of the position."""

ROUNDING = 1e-5
"""By which sums may differ, in units of the root of the sum of squares."""

_CHUNK = 2**22

_PART = schema.table(
    {
        "shape": schema.listed(schema.whole(), 1),
        "dtype": schema.text(20),
        "labels": schema.text(64),
        "examples": schema.text(64),
        "sums": schema.listed(schema.measured),
    }
)

FINGERPRINT = schema.table({"classes": schema.text(64), "train": _PART, "test": _PART}, {"encoder": schema.text(64)})
"""How one is read."""


def fingerprint(data: Dataset) -> dict[str, Any]:
    """The fingerprint of a data set as it was read, and of the weights of what embedded it, for JSON.

    Cost: a pass over what is in memory, about a second a gigabyte.
    """
    encoder = data.form.details.get("digest")
    return {
        **({"encoder": encoder} if encoder else {}),
        "classes": _digest(json.dumps(data.form.classes).encode()),
        "train": _part(data.shown.x, data.y),
        "test": _part(data.shown.x_test, data.y_test),
    }


def _part(x: Examples, y: Tensor) -> dict[str, Any]:
    known = x if isinstance(x, Tensor) else x[evenly(len(x), SAMPLE)] if len(x) else torch.zeros(0)
    known = known.detach().cpu().contiguous()
    return {
        "shape": list(x.shape),
        "dtype": str(x.dtype).removeprefix("torch."),
        "labels": _digest(_bytes(y.cpu())),
        "examples": _digest(_bytes(known)),
        "sums": _sums(known.flatten()) if known.is_floating_point() else [],
    }


def _bytes(x: Tensor) -> memoryview:
    return x.contiguous().flatten().numpy().view(np.uint8).data


def _digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _sums(x: Tensor) -> list[float]:
    """The root of the sum of squares, then the sums, in float64."""
    squares, sums = 0.0, [0.0] * len(FREQUENCIES)
    for start in range(0, len(x), _CHUNK):
        some = x[start : start + _CHUNK].double()
        at = torch.arange(start, start + len(some), dtype=torch.float64)
        squares += float(some.square().sum())
        sums = [total + float(some @ torch.cos(at * pace)) for total, pace in zip(sums, FREQUENCIES, strict=True)]
    return [math.sqrt(squares), *sums]


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In what two fingerprints differ, in words; empty where they are of the same data.

    Args:
        then: a fingerprint, complete.
        now: of the data as it is now.
    """
    found = [] if then["classes"] == now["classes"] else ["the names of the classes"]
    found += [] if then.get("encoder") == now.get("encoder") else ["weights of the encoder"]
    for part, name in (("train", "training pool"), ("test", "test set")):
        one, other = then[part], now[part]
        if one["shape"] != other["shape"]:
            found.append(f"the {name} (shape {other['shape']}, then {one['shape']})")
            continue
        found += [f"labels of the {name}"] if one["labels"] != other["labels"] else []
        found += [f"examples of the {name}"] if not _same(one, other) else []
    return found


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if one["dtype"] != other["dtype"] or len(one["sums"]) != len(other["sums"]):
        return False
    if one["examples"] == other["examples"]:
        return True
    near = ROUNDING * max([1e-300, *one["sums"][:1]])
    return bool(one["sums"]) and all(abs(a - b) <= near for a, b in zip(one["sums"], other["sums"], strict=True))
