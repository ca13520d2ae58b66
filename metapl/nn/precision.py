"""Networks that compute in bfloat16 and keep everything else in float32.

Matrix products and convolutions of a pass in training are computed in bfloat16 (`torch.autocast`); normalisation,
parameters, running statistics, logits, losses, optimiser and averages stay float32, and so do evaluation and
prediction. The feedback goes through the student's passes, and its dot products and sums are float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from metapl.core import tree
from metapl.core.interception import Interception
from metapl.core.types import Buffers, Key, Model, Params
from metapl.registry.errors import unknown

PRECISIONS = ("float32", "bf16")
"""What passes in training may be computed in."""


NORMS = (F.batch_norm, F.layer_norm, F.group_norm, F.instance_norm, F.rms_norm)
"""What is computed in float32: torch has no forward mode through the gradient of a mean in bfloat16."""


def lowered(model: Model, name: str) -> Model:
    """The model with its training passes in a precision of `PRECISIONS`; its logits are float32.

    Casts of the weights are not kept between operations: within a caller's own autocast they would outlive the
    transform of `torch.func` that they were made in.

    Raises:
        InputError: an unknown precision.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    if name == PRECISIONS[0]:
        return model

    def apply(
        params: Params, buffers: Buffers, x: Any, *, train: bool, key: Key | None = None, rows: Tensor | None = None
    ) -> tuple[Any, Buffers]:
        if not train:
            return model.apply(params, buffers, x, train=train, key=key, rows=rows)
        device = next((value.device.type for value in (*params.values(), *buffers.values())), "cpu")
        with torch.autocast(device, torch.bfloat16, cache_enabled=False), Interception(_wide_norms):
            logits, after = model.apply(params, buffers, x, train=train, key=key, rows=rows)
        return tree.map(lambda one: one.float() if one.dtype == torch.bfloat16 else one, logits), after

    return model._replace(apply=apply)


def _wide_norms(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func in NORMS and args and args[0].dtype == torch.bfloat16:
        args = (args[0].float(), *args[1:])
    return func(*args, **kwargs)
