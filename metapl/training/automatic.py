"""What a configuration leaves open, decided by the form of the data: each `auto` becomes a name.

    method      mpl if an estimator is named; else uda, unless `metapl.training.choosing` finds better
    grad        exact
    model       cosine for features, convnet for colour or large images, mlp for all else
    guide       consensus where distances between examples mean something: small grey images, vectors, tables, features
    alignment   uniform from three classes on; none for two, whose shares are seldom equal

The commands print what was decided, and the saved configuration has it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from metapl.data.form import Form
from metapl.training.config import TrainConfig

AUTO = "auto"
"""The value that leaves a field open."""

BEFORE = {"guide": "none", "alignment": "none"}
"""What runs were trained with before these fields existed."""


def plain(form: Form) -> bool:
    """Whether Euclidean distances between examples mean something: not between photographs."""
    return form.kind != "images" or form.small_and_grey


def older(config: TrainConfig) -> TrainConfig:
    """The configuration of a finished run: what its file leaves open is a field that its version had not."""
    left_open: dict[str, Any] = {name: value for name, value in BEFORE.items() if getattr(config, name) == AUTO}
    return replace(config, **left_open)


def settle(config: TrainConfig, form: Form) -> TrainConfig:
    """The configuration with a name in place of each `auto`, for data of a form."""
    decided: dict[str, Any] = {
        "method": "uda" if config.grad == AUTO else "mpl",
        "grad": "exact",
        "model": "cosine" if form.kind == "features" else "mlp" if plain(form) else "convnet",
        "guide": "consensus" if plain(form) else "none",
        "alignment": "uniform" if len(form.classes) > 2 else "none",
    }
    return replace(config, **{name: value for name, value in decided.items() if getattr(config, name) == AUTO})
