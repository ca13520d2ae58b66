"""`higher` copies a module without its forward hooks: what they do to the output is gone in the inner loop.

Old-style spectral normalisation is such a hook, and is lost in the same way.
"""

from __future__ import annotations

from typing import Any

import torch
from common import load, row, show
from torch import Tensor, nn

from metapl.core import rng
from metapl.nn import functional

higher = load("higher", "higher")


def doubling() -> nn.Module:
    """A layer of ones whose hook doubles its output."""
    layer = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(layer.weight)
    layer.register_forward_hook(lambda module, args, output: 2 * output)  # noqa: ARG005 - torch calls it with three
    return layer


def measure() -> dict[str, Any]:
    """The output of the layer for the input (1, 2, 3)."""
    x: Tensor = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    layer = doubling()
    with higher.innerloop_ctx(layer, torch.optim.SGD(layer.parameters(), lr=0.1)) as (patched, _):
        found = patched(x).item()
    model = functional.from_module(doubling)
    params, buffers = model.init(rng.key(0))
    return row(
        "higher",
        "forward hooks of the module are dropped",
        "output of a doubled layer",
        found=found,
        expected=2 * (1.0 + 2.0 + 3.0),
        metapl=model.apply(params, buffers, x, train=True)[0].item(),
    )


if __name__ == "__main__":
    show(measure())
