"""Networks for `metapl train`, plain `nn.Module`s. A new one is a file here and a line in `MODELS`.

A constructor takes the shape of one example and the number of classes, then its own options as keywords, which the
command line sets as in `--model mlp:width=256`.
"""

from collections.abc import Callable

from torch import nn

from metapl.models.convnet import convnet
from metapl.models.mlp import mlp

MODELS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "convnet": convnet}

__all__ = ["MODELS", "convnet", "mlp"]
