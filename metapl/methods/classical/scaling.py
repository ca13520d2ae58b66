"""How classical methods scale their inputs: as stored, to unit length, or standardised by feature.

Data arrives standardised as its source does it. `stored` undoes that, for images in units of white = 1. What follows is
the same for all: centring, at most `COMPONENTS` principal components, and one factor that makes the mean squared length
1, so that a penalty or a distance means the same whatever the data is measured in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from metapl.data.form import Form
from metapl.methods.seen import Seen
from metapl.models.fitted import Scaled

COMPONENTS = 128
"""The most principal components; examples of fewer features are only centred."""

FITTED = 2000
"""At most so many of the first examples decide the centre, the components and the length."""

Scaling: TypeAlias = Callable[[Tensor, Form], tuple[Tensor, Tensor, float]]
"""`scaling(x, form)`: gain `[features]`, shift `[features]` and power of `metapl.models.fitted.Scaled`."""


def stored(x: Tensor, form: Form) -> tuple[Tensor, Tensor, float]:
    """The numbers as they are in the file; of a table its encoded features."""
    if form.kind == "table":
        return torch.ones(x.shape[1]), torch.zeros(x.shape[1]), 0.0
    mean, std = (torch.tensor(form.details[name], dtype=torch.float32) for name in ("mean", "std"))
    if form.kind == "images":  # a number for each channel
        mean, std = (value.reshape(-1, *[1] * (len(form.shape) - 1)) for value in (mean, std))
    return std.expand(form.shape).flatten(), mean.expand(form.shape).flatten(), 0.0


def unit(x: Tensor, form: Form) -> tuple[Tensor, Tensor, float]:
    """The numbers as stored, each example scaled to length 1."""
    gain, shift, _ = stored(x, form)
    return gain, shift, 1.0


def standardised(x: Tensor, form: Form) -> tuple[Tensor, Tensor, float]:
    """Mean 0 and standard deviation 1 of every feature; one that never changes is 0."""
    del form  # the same whatever the source has done
    mean, std = x.mean(0), x.std(0, correction=0)
    gain = torch.where(std > 1e-6 * (1 + mean.abs()), 1 / std, 0.0)
    return gain, -mean * gain, 0.0


SCALINGS: dict[str, Scaling] = {"as stored": stored, "unit length": unit, "standardised": standardised}
"""The scalings by name."""


FEW = 64
"""Arrays of fewer numbers are no directions: at unit length two numbers are one angle."""


def preferred(form: Form) -> list[str]:
    """The scalings in the order of preference.

    Of a table its encoded features first, of short arrays standardised ones, of all else unit length.
    """
    if form.kind == "table":
        first = "as stored"
    else:
        first = "standardised" if form.kind == "arrays" and math.prod(form.shape) < FEW else "unit length"
    return [first, *(name for name in SCALINGS if name != first)]


def fit(name: str, x: Tensor, form: Form) -> Scaled:
    """The scaling of a name, fitted to the first of some examples `[examples, features]`, without their classes.

    The principal components are those of scikit-learn, from a random start that is always the same.
    """
    from sklearn.decomposition import PCA  # noqa: PLC0415 - a second to import

    x, features = x[:FITTED], x.shape[1]
    plain = Scaled(features, features)
    plain.gain, plain.shift, power = SCALINGS[name](x, form)
    plain.power = torch.tensor(power)
    scaled = Scaled(features, min(features, len(x), COMPONENTS) if features > COMPONENTS else features)
    y = plain.before(x)
    scaled.gain, scaled.shift, scaled.power, scaled.centre = plain.gain, plain.shift, plain.power, y.mean(0)
    if features > COMPONENTS:
        found = PCA(scaled.projection.shape[1], random_state=0).fit(y.numpy())
        scaled.projection = torch.from_numpy(found.components_.T.copy()).float()
    length = (scaled(x).square().sum(1).mean()).sqrt().item()
    if length > 0 and math.isfinite(length):
        scaled.projection = scaled.projection / length
    return scaled


def apart(seen: Seen, name: str) -> tuple[Scaled, Tensor]:
    """The scaling of a name without the validation part, and the inputs `[labelled + unlabelled, components]`."""
    x = seen.without_validation
    found = fit(name, x, seen.form)
    return found, found(x)
