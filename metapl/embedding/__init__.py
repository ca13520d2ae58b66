"""Features of a pretrained network: what examples become before anything is trained on them.

    encoder.py     what makes features
    images.py      images, and EfficientNet-Lite0, whose weights a package ships
    external.py    networks of timm and of your own packages
    texts.py       MiniLM, sentence embeddings; bert.py is its network, wordpiece.py its words
    weights.py     weights of a file, read without running anything
    cache.py       what has been computed already
    run.py         all examples of a data set, batch by batch, into one file
    applied.py     a data set, and fresh examples, as features: what `embed` of a configuration does

Floor 4: imports data, files, models, core and registry; training, serving and the command line use it.
"""

from __future__ import annotations

from collections.abc import Callable

from metapl.embedding.encoder import Encoder, Given
from metapl.embedding.external import external
from metapl.embedding.images import efficientnet_lite0
from metapl.embedding.texts import minilm
from metapl.models.external import KINDS
from metapl.registry import notation
from metapl.registry.errors import unknown

ENCODERS: dict[str, Callable[..., Encoder]] = {
    "efficientnet-lite0": efficientnet_lite0,
    "minilm": minilm,
}
"""The pretrained networks whose weights packages ship, for `--model NAME:key=value,…`."""

__all__ = ["ENCODERS", "Encoder", "Given", "build"]


def build(text: str, given: Given) -> Encoder:
    """The encoder that the command line names.

    Args:
        text: `NAME:key=value,…` of `ENCODERS`, or `timm:NAME,key=value,…`, or
            `module:PACKAGE.MODULE:CONSTRUCTOR,key=value,…`.
        given: what it is to encode, and its weights.

    Raises:
        InputError: an unknown name or option, a missing package, weights that do not fit, examples of another kind.
    """
    kind = text.partition(":")[0]
    if kind in KINDS:
        return external(text, given)
    if kind not in ENCODERS:
        raise unknown("model", kind, [*ENCODERS, *KINDS])
    built: Encoder = notation.build(text, ENCODERS, "model", given)
    return built
