"""A data set as features of a pretrained network, and fresh examples likewise: what `embed` of a configuration does.

    images ─► encoder, once each ─► features ─► all that is trained
       └────────────────────────► what a person is shown

The form of the features says which encoder made them and of what, so that fresh images are read as images and go
through the same encoder. What was computed once is in the cache, see `metapl.embedding.cache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metapl.data import inputs, progress
from metapl.data.augment import presets
from metapl.data.examples import Examples, Inputs, Problems
from metapl.data.form import Form, embedded_from
from metapl.data.formats import features
from metapl.data.sources.base import Dataset, Original
from metapl.embedding import cache
from metapl.embedding.encoder import Encoder, Given
from metapl.embedding.images import efficientnet_lite0
from metapl.embedding.run import Wanted, vectors
from metapl.registry import notation
from metapl.registry.errors import InputError, unknown

ENCODERS = {"efficientnet-lite0": efficientnet_lite0}
"""The networks for images whose weights packages ship: none of them is code that somebody else's file names."""


def embedded(data: Dataset, text: str, device: torch.device) -> Dataset:
    """The data set whose examples are features; what they were before is its `original`.

    Args:
        data: of images.
        text: `NAME:key=value,…` of `ENCODERS`.
        device: where the encoder runs.

    Raises:
        InputError: an unknown encoder, a missing package, no images.

    Cost: a pass of the encoder over every example that is not in the cache.
    """
    encoder = _build(text, data.form, device)
    x, x_test = (_features(encoder, part) for part in (data.x, data.x_test))
    form = _form(encoder, x, data.form)
    original = Original(data.form, data.x, data.x_test)
    return data._replace(x=x, x_test=x_test, form=form, augment=presets.default(form), original=original)


def read(form: Form, places: Sequence[Path], device: torch.device, problems: Problems | None = None) -> Inputs:
    """`metapl.data.inputs.read`, and through the encoder where the form is of features of an encoder of `ENCODERS`.

    Raises:
        InputError: what the reader refuses, a missing package, weights that are not those of the training.
    """
    before = embedded_from(form)
    return of(form, inputs.read(before or form, places, problems), device)


def of(form: Form, found: Inputs, device: torch.device) -> Inputs:
    """Fresh examples, read in the form that they had before they were embedded, in the form of a data set.

    Raises:
        InputError: as `read`.
    """
    before = embedded_from(form)
    if before is None:
        return found
    encoder = _build(form.details["encoder"], before, device)
    if encoder.digest != form.details["digest"]:
        raise InputError(
            f"the weights of {encoder.name} are not those that the run was trained with: install that version of their "
            "package, or train again"
        )
    return found._replace(x=_features(encoder, found.x))


def _build(text: str, form: Form, device: torch.device) -> Encoder:
    if text.partition(":")[0] not in ENCODERS:
        raise unknown("embed", text.partition(":")[0], ["none", *ENCODERS])
    built: Encoder = notation.build(text, ENCODERS, "embed", Given(form, device=device))
    return built


def _features(encoder: Encoder, x: Examples) -> Tensor:
    """`[examples, features]`, float16."""
    done = 0

    def tell(count: int, _: bool) -> None:
        nonlocal done
        done += count
        progress.tell("embedding", done, len(x))

    made = vectors(encoder, x, {"x": None}, Wanted(cache=cache.default()), tell)
    return torch.from_numpy(made["x"])


def _form(encoder: Encoder, x: Tensor, before: Form) -> Form:
    details: dict[str, Any] = {
        **features.details("unit", x.numpy()),
        "because": f"made by {encoder.name}",
        "encoder": encoder.name,
        "digest": encoder.digest,
        "before": {"kind": before.kind, "shape": list(before.shape), "details": before.details},
    }
    return Form("features", (encoder.features,), before.classes, details)
