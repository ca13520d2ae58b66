"""Features of a pretrained network: vectors whose direction says more than their length, with stored views or without.

Stored examples are `[examples, features]`, or `[examples, 1 + weak + strong, features]` where several views of each
were embedded: first the example as it is, then its weak views, then its strong ones.

Examples:
    >>> import torch
    >>> from metapl.data.form import Form
    >>> from metapl.data.formats import features
    >>> form = Form("features", (2,), ("a", "b"), features.details("unit", torch.zeros(1, 2).numpy()))
    >>> features.prepare(form)(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metapl.data.examples import Inputs
from metapl.data.form import Form
from metapl.data.formats import arrays, limits
from metapl.data.formats.files import shown

SCALES = ("unit", "standard", "none")
"""Each vector divided by its length; each feature brought to mean 0 and standard deviation 1; as it is."""

WIDE = 128
"""Numbers that a vector has at least to be taken for features without being called so."""

LONG = 0.01
"""By which the length of a unit vector may differ from 1, after rounding to float16."""


def recognise(found: Mapping[str, np.ndarray]) -> str:
    """Why arrays by name are features of a network, in words; empty if they are taken for measurements.

    They are if `encoder` names the network that made them. Else if `x` is `[examples, 128 or more]`, of floating-point
    numbers, and stored as float16, or without a negative number (means of rectified units), or of length 1 each.
    """
    x = found["x"]
    if "encoder" in found:
        return f"made by {' '.join(str(found['encoder'].tolist()).split())[:MADE]}"
    if x.ndim != 2 or x.dtype.kind != "f" or x.shape[1] < WIDE:
        return ""
    wide = f"{x.shape[1]:,} numbers each"
    if x.dtype == np.float16:
        return f"{wide}, stored as float16"
    if not (x < 0).any():
        return f"{wide}, none negative"
    lengths = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    return f"{wide}, of length 1" if (np.abs(lengths - 1) < LONG).all() else ""


MADE = 100
"""Letters that are shown of what made them."""


def details(scale: str, x: np.ndarray, where: str = "x") -> dict[str, Any]:
    """The details of a form by the name of the scale: (x − mean) / std, then of length 1 where `unit` says so.

    Args:
        scale: one of `SCALES`.
        x: the training pool `[examples, features]`.
        where: it is from, for messages.

    Raises:
        InputError: numbers beyond reason.
    """
    if scale != "standard":
        return {"mean": 0.0, "std": 1.0, "unit": scale == "unit"}
    mean, std = arrays.scale(x, where)
    return {"mean": mean.tolist(), "std": std.tolist(), "unit": False}


def description(form: Form, shape: Sequence[int]) -> str:
    """What the examples were taken for, and how to say otherwise, in words.

    Args:
        form: of features.
        shape: of the stored examples.
    """
    apart = form.details["std"] != 1.0
    done = "divided by its length" if form.details["unit"] else "standardised" if apart else "as it is"
    views = f", {shape[1] - 1} stored views of each" if len(shape) == 3 else ""
    because = form.details["because"]
    how = "--embed none trains on the images" if "before" in form.details else "scale=unit|standard|none says otherwise"
    return f"features of a network ({because}), each {done}{views}; {how}"


def itself(x: Tensor) -> Tensor:
    """The examples as they are, `[batch, features]`, without their stored views."""
    return x if x.ndim == 2 else x[:, 0]


def prepare(form: Form) -> Callable[[Tensor], Tensor]:
    """From stored features, with views or without, to what a network sees, in float32 at least; see `details`.

    A vector of zeros stays one.
    """
    mean, std = (torch.tensor(form.details[name], dtype=torch.float64) for name in ("mean", "std"))
    raw = not mean.any() and bool((std == 1).all())

    def ready(x: Tensor) -> Tensor:
        x = itself(x)
        wide = torch.promote_types(x.dtype, torch.float32)
        scaled = x.to(wide) if raw else ((x.double() - mean.to(x.device)) / std.to(x.device)).to(wide)
        return torch.nn.functional.normalize(scaled, dim=-1) if form.details["unit"] else scaled

    return ready


def read(form: Form, places: Sequence[Path]) -> Inputs:
    """Fresh features from the array `x` of `.npy` and `.npz` files and folders, in float32.

    The name of each is the path with its number in brackets, as in `x.npy[0]`.

    Raises:
        InputError: examples of another shape, and what `metapl.data.formats.arrays` refuses.
    """
    names, parts = [], []
    for place in places:
        x = arrays.fresh(form, place)
        names += [f"{place}[{number}]" for number in range(len(x))]
        parts.append(torch.from_numpy(x.astype(np.float32)))
        limits.require(sum(part.nbytes for part in parts), shown(place))
    return Inputs(names, torch.cat(parts))
