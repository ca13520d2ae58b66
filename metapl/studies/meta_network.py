"""A network on the meta device: tensors with a shape and no numbers, whose passes are counted and not computed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl import models
from metapl.core import tree
from metapl.core.interception import Interception
from metapl.core.types import Buffers, Model, Params
from metapl.nn import functional, microbatch, precision
from metapl.nn.layout import channels_last
from metapl.registry.errors import unknown


class Network(NamedTuple):
    """What is trained, and on what."""

    model: str
    """Of teacher and student, as `--model` has it."""
    shape: tuple[int, ...]
    """Of one example."""
    classes: int = 10
    precision: str = "float32"
    microbatch: int = 0
    """The most examples in memory at a time; 0: the whole batch."""


def network(given: Network) -> Model:
    """The network as pure functions; its parameters are on the meta device.

    Raises:
        InputError: an unknown network, option or precision, or a shape that it does not take.
    """

    def build() -> nn.Module:
        with torch.device("meta"):
            return models.build(given.model, given.shape, given.classes)

    if given.precision not in precision.PRECISIONS:
        raise unknown("precision", given.precision, precision.PRECISIONS)
    model = channels_last(functional.from_module(build))
    model = model if given.precision == precision.PRECISIONS[0] else _lowered(model)
    return microbatch.in_parts(_keyless(model), given.microbatch) if given.microbatch else model


def _keyless(model: Model) -> Model:
    """Without keys: that of a part is made from the numbers of its first row, which a tensor here does not have."""

    def apply(params: Params, buffers: Buffers, x: Tensor, **how: Any) -> tuple[Tensor, Buffers]:
        return model.apply(params, buffers, x, **{**how, "key": None})

    return model._replace(apply=apply)


_PRODUCTS = {F.linear, F.conv1d, F.conv2d, F.conv3d, torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__}
_WIDE = {*precision.NORMS, F.softmax, torch.softmax, Tensor.softmax, F.log_softmax, torch.log_softmax}


def _lowered(model: Model) -> Model:
    """As `metapl.nn.precision.lowered` in bfloat16, on the meta device, which has no autocast."""

    def cast(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        target = torch.bfloat16 if func in _PRODUCTS else torch.float32 if func in _WIDE else None
        if target is not None:
            args, kwargs = tree.to((args, kwargs), target)
        return func(*args, **kwargs)

    def apply(params: Params, buffers: Buffers, x: Tensor, **how: Any) -> tuple[Tensor, Buffers]:
        with Interception(cast):
            logits, after = model.apply(params, buffers, x, **how)
        return logits.float(), after

    return model._replace(apply=apply)
