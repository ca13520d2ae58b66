"""A folder that `metapl export` wrote, read again: the network with its weights, and what its inputs are.

The folder is data, wherever it comes from: every field of `config.json` is checked, the weights are compared with their
checksum and with the network, and code that is not metapl's own is imported only if it is trusted, see
`metapl.registry.trust`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from metapl import models
from metapl.core import rng
from metapl.data.form import Form
from metapl.files import checksum, schema
from metapl.registry import trust
from metapl.registry.errors import InputError
from metapl.training import fitting, run_files

WEIGHTS = "model.safetensors"
"""The file of the weights."""

_CONFIG = schema.table(
    {
        **run_files.FORM,
        "metapl": schema.text(),
        "versions": schema.by_name(schema.text(), schema.text()),
        "network": schema.among(run_files.NETWORKS),
        "model": schema.text(),
        "weights": schema.among((WEIGHTS,)),
        "graph": schema.any_of,
    },
    {"sha256": schema.text(64), "temperature": schema.positive},
)


class Exported(NamedTuple):
    """A network on its own."""

    network: nn.Module
    """In evaluation mode, from what `metapl.data.inputs.prepare` gives to logits `[batch, classes]`."""
    form: Form
    """What an example is, and the names of the classes."""
    temperature: float = 1.0
    """What the logits are divided by for probabilities."""


def load(folder: Path, trust_code: bool = False) -> Exported:
    """Read an exported folder.

    Args:
        folder: what `metapl export` wrote.
        trust_code: whether code that the folder names may be imported, see `metapl.registry.trust`.

    Raises:
        InputError: it cannot be read, is damaged, or needs code that is not trusted.
    """
    place, weights = folder / "config.json", folder / WEIGHTS
    config = schema.load(place, _CONFIG)
    trust.require({"model": config["model"]}, str(place), trust_code)
    form = run_files.form(config, str(place))
    schema.require_file(weights, "is the folder complete?")
    checksum.require(weights, config.get("sha256", ""), place)
    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{weights} cannot be read ({error}): is the folder complete?") from None
    fitting.require(config["model"], form, state, str(weights), persistent=True)
    with rng.seeded(rng.key(0)):
        network = models.build(config["model"], form.shape, len(form.classes))
    network.load_state_dict(state)
    return Exported(network.eval(), form, float(config.get("temperature", 1.0)))
