"""Any `nn.Module` as a pair of pure functions.

Examples:
    >>> import torch
    >>> from metapl import functional, rng
    >>> model = functional.from_module(lambda: torch.nn.Linear(3, 2))
    >>> params, buffers = model.init(rng.key(0))
    >>> logits, buffers = model.apply(params, buffers, torch.zeros(5, 3), train=True)
    >>> logits.shape
    torch.Size([5, 2])
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from metapl import dropout, rng, tree
from metapl.types import Buffers, Key, Model, Params


def _without_storage(module: nn.Module) -> nn.Module:
    """Put parameters and buffers on the meta device, so that a missing one is never filled in from the template.

    `Module.to("meta")` would untie tied weights.
    """
    hollow: dict[Tensor, Tensor] = {}
    for part in module.modules():
        stores: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for tensors in stores:
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if tensor not in hollow:
                    empty = torch.empty_like(tensor, device="meta")
                    hollow[tensor] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
                tensors[name] = hollow[tensor]
    return module


def from_module(build: Callable[[], nn.Module]) -> Model:
    """A model from a function that builds a module with torch's usual random initialisation.

    `apply` never changes its inputs: BatchNorm's running statistics go in as buffers and come back updated (with
    `train=True`), so a probe is a call whose buffers are dropped. With `train=True`, dropout layers draw from `key`
    (`metapl.dropout`), and what else draws finds torch's generator seeded with it; a module that draws nothing needs
    none. `rows` `[batch]` says which examples of a larger batch these are, for who passes a batch in parts.

    Args:
        build: called once for the structure, and once per `init` with the global generator seeded from the key.

    Returns:
        A `Model`. `apply` raises `RuntimeError` if `params` and `buffers` are not exactly the module's own.
    """
    with rng.seeded(rng.key(0)):
        template = _without_storage(dropout.keyed(build()))
    templates = {True: template.train(), False: copy.deepcopy(template).eval()}

    def init(key: Key) -> tuple[Params, Buffers]:
        with rng.seeded(key):
            module = build()
        params = {name: value.detach().clone() for name, value in module.named_parameters()}
        buffers = {name: value.detach().clone() for name, value in module.named_buffers()}
        return params, buffers

    def apply(
        params: Params,
        buffers: Buffers,
        x: Tensor,
        *,
        train: bool,
        key: Key | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Buffers]:
        # Cloned here, inside whatever transform is running: a transform refuses to mutate what it captured.
        state = {**params, **({name: value.detach().clone() for name, value in buffers.items()} if train else buffers)}
        with _random(key, rows) if train and key is not None else nullcontext():
            logits = torch.func.functional_call(templates[train], state, (x,), strict=True)
        return logits, {name: state[name].detach() for name in buffers}

    coupled = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in template.modules())
    return Model(init, apply, _scales(template), coupled)


@contextmanager
def _random(key: Key, rows: Tensor | None) -> Iterator[None]:
    """Dropout layers draw from the key; whatever else draws finds torch's generator seeded with it."""
    with rng.seeded(key if rows is None else rng.fold_in(key, rows[0])), dropout.drawing(key, rows):
        yield


NORMALISATION = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def _scales(module: nn.Module) -> frozenset[str]:
    return frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        if isinstance(part, NORMALISATION)
        for name, _ in part.named_parameters(recurse=False)
    )


def cast(model: Model, dtype: torch.dtype) -> Model:
    """The same model with its parameters and buffers initialised in another floating-point dtype."""

    def init(key: Key) -> tuple[Params, Buffers]:
        return tree.to(model.init(key), dtype)

    return model._replace(init=init)
