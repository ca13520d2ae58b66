"""What the last layer of a network sees: its features of an example."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from metapl.serving import export
from metapl.training.run_folder import Serving


@torch.no_grad()
def features(serving: Serving, batches: Iterable[Tensor]) -> Tensor:
    """The inputs of the last module that has parameters of its own, `[examples, features]`, flattened, on the CPU.

    Cost: a forward pass. A network without such a module is taken to see the examples themselves.

    Args:
        serving: the network.
        batches: examples that are ready for it.

    Raises:
        InputError: it is no single module, as `metapl.serving.export.module`.
    """
    device = next(iter([*serving.network.params.values(), *serving.network.buffers.values()])).device
    module = export.module(serving).to(device)
    layers = [one for one in module.modules() if any(True for _ in one.parameters(recurse=False))]
    seen: list[Tensor] = []

    def look(layer: nn.Module, given: tuple[Any, ...]) -> None:
        del layer
        seen.append(given[0].flatten(1).cpu())

    if not layers:
        return torch.cat([batch.flatten(1).cpu() for batch in batches])
    handle = layers[-1].register_forward_pre_hook(look)
    try:
        for batch in batches:
            module(batch)
    finally:
        handle.remove()
    return torch.cat(seen)
