"""Networks for `metapl train`, plain `nn.Module`s. A new one is a file here and a line in `MODELS`.

A constructor takes the shape of one example and the number of classes, then its own options as keywords, which the
command line sets as in `--model mlp:width=256`. Networks of timm and of your own packages need no line, see
`metapl.models.external`. The folder stands at the top of the repository and is installed as `metapl.models`.

Floor 2: imports `registry`; training and serving import it.

Examples:
    >>> from metapl import models
    >>> models.build("mlp:width=16,depth=1", (2,), 3)[-1]
    Linear(in_features=16, out_features=3, bias=True)
"""

from collections.abc import Callable

from torch import nn

from metapl.models.convnet import convnet
from metapl.models.efficientnet import efficientnet
from metapl.models.external import KINDS, external, read
from metapl.models.fitted import neighbours, scaled_linear
from metapl.models.heads import cosine, linear
from metapl.models.mlp import mlp
from metapl.models.resnet import resnet18, resnet50
from metapl.models.vit import vit
from metapl.models.wideresnet import wrn
from metapl.registry import notation
from metapl.registry.errors import unknown

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "linear": linear,
    "cosine": cosine,
    "convnet": convnet,
    "wrn": wrn,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vit": vit,
    "efficientnet": efficientnet,
}
"""The networks of metapl by name, for `--model NAME:key=value,…`."""

FITTED: dict[str, Callable[..., nn.Module]] = {"scaled-linear": scaled_linear, "neighbours": neighbours}
"""The networks that a classical method fits, by name; nobody types them."""

KNOWN = {**MODELS, **FITTED}
"""All that `build` makes of metapl's own."""

__all__ = [
    "FITTED",
    "KNOWN",
    "MODELS",
    "MOST",
    "build",
    "convnet",
    "cosine",
    "efficientnet",
    "linear",
    "mlp",
    "resnet18",
    "resnet50",
    "vit",
    "wrn",
]


def build(text: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network that the command line names.

    Args:
        text: `NAME:key=value,…` of `KNOWN`, or `timm:NAME,key=value,…`, or
            `module:PACKAGE.MODULE:CONSTRUCTOR,key=value,…`.
        shape: of one example.
        classes: number of them.

    Raises:
        InputError: an unknown name or option, a value that makes no network, or a network from elsewhere that cannot be
            used.
    """
    kind, _, rest = text.partition(":")
    if kind in KINDS:
        name, options = read(rest)
        return external(kind, name, shape, classes, options)
    if kind not in KNOWN:
        raise unknown("model", kind, [*MODELS, *KINDS])
    return notation.build(text, KNOWN, "model", shape, classes)
