"""Convolutional networks whose images lie in memory with the channels innermost.

Torch computes convolutions of such images faster: a step on a wide ResNet takes 0.83 of the time on
a CPU (docs/results/cost.md), and tensor cores of a GPU ask for it. Numbers differ by rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metapl.core import torch_private
from metapl.core.types import Buffers, Key, Model, Params

AXES = 4
"""Of a batch of images, and of the kernels of a convolution in the plane."""


def channels_last(model: Model) -> Model:
    """The model with the images `[batch, channels, height, width]` of its passes in `torch.channels_last`.

    Layers hand the layout on. A network without kernels of four axes, or with other inputs, is passed as before; so it
    is under `torch.vmap` and in forward mode, which do not know such layouts everywhere (torch's formula for group norm
    takes views), and under `torch.compile`, which chooses layouts by itself.

    For networks that take images of any layout: `x.view(len(x), -1)` of a feature map raises an error with these, and
    `x.flatten(1)` does not.
    """

    def apply(
        params: Params, buffers: Buffers, x: Any, *, train: bool, key: Key | None = None, rows: Tensor | None = None
    ) -> tuple[Any, Buffers]:
        if _images(x) and any(value.ndim == AXES for value in (*params.values(), *buffers.values())):
            x = x.contiguous(memory_format=torch.channels_last)
        return model.apply(params, buffers, x, train=train, key=key, rows=rows)

    return model._replace(apply=apply)


def _images(x: Any) -> bool:
    if not isinstance(x, Tensor) or x.ndim != AXES or not x.is_floating_point():
        return False
    return not (torch.compiler.is_compiling() or torch_private.inside_vmap() or torch_private.inside_forward_mode())
