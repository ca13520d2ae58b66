"""Networks of timm and of your own packages as encoders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from metapl.data import inputs
from metapl.data.form import Form
from metapl.embedding import weights
from metapl.embedding.encoder import Encoder, Given, from_module
from metapl.embedding.images import levels, resized
from metapl.files import checksum
from metapl.models.external import KINDS, read
from metapl.registry.errors import InputError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of levels 0 … 1 by channel, for networks of timm that do not say theirs."""


def external(text: str, given: Given) -> Encoder:
    """A network of timm or of a package, made for 0 classes: it gives features.

    Of kind `timm`: `timm.create_model(name, num_classes=0, …)`, whose input is resized and standardised as timm's
    configuration of it says; the weights are those of the file, or with `pretrained=true` what timm finds. Of kind
    `module`: `CONSTRUCTOR(shape, 0, …)`, which maps `[batch, *shape]` to `[batch, features]`; images come with levels
    0 … 1 and three channels, all else as a network of `metapl train` gets it. Its code is part of the digest.

    Raises:
        InputError: texts, whatever `metapl.models.external.external` refuses, weights that are missing or do not fit.
    """
    kind, _, rest = text.partition(":")
    name, options = read(rest)
    form = given.form
    if form is None:
        raise InputError(f"model {text!r} embeds no texts: use --model minilm")
    images = form.kind == "images"
    shape = (3, *((given.size,) * 2 if given.size else form.shape[1:])) if images else form.shape
    network = KINDS[kind](name, shape, 0, options)
    if not isinstance(network, nn.Module):
        raise InputError(f"model {text!r} makes a {type(network).__name__}: a constructor returns an nn.Module")
    if given.weights is not None:
        weights.load(network, weights.read(given.weights), str(given.weights))
    elif not options.get("pretrained"):
        raise InputError(f"model {text!r} has no weights yet: give --weights FILE, or pretrained=true as its option")
    prepare, settings = _pictures(kind, network, form, given.size) if images else (inputs.prepare(form), ())
    return from_module(text, network, given, prepare, settings, _code(kind, name))


def _pictures(
    kind: str, network: nn.Module, form: Form, size: int
) -> tuple[Callable[[Tensor], Tensor], tuple[object, ...]]:
    """From stored images to what a network takes, and the settings that it depends on."""
    three = levels(form)
    if kind == "module":
        return (lambda x: (resized(three(x), size) if size else three(x)) / 255), ("0 … 1", size)
    known = getattr(network, "pretrained_cfg", None) or {}
    side = size or int(known.get("input_size", (3, 224, 224))[-1])
    mean, std = (tuple(known.get(key, usual)) for key, usual in zip(("mean", "std"), IMAGENET, strict=True))
    centre, spread = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def prepare(x: Tensor) -> Tensor:
        return (resized(three(x), side) / 255 - centre.to(x.device)) / spread.to(x.device)

    return prepare, (side, mean, std)


def _code(kind: str, name: str) -> str:
    """SHA-256 of the file with a network's constructor; of timm the version."""
    found = sys.modules.get(name.partition(":")[0] if kind == "module" else kind)
    file = getattr(found, "__file__", None)
    if kind == "timm" or not file or not Path(file).is_file():
        return str(getattr(found, "__version__", ""))
    return checksum.of(Path(file))
