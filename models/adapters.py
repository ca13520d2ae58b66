"""Adapters: few numbers that are trained in place of the weights of a frozen layer.

Examples:
    >>> from torch import nn
    >>> from metapl.models.adapters import lora, merge
    >>> network = lora(rank=1)(nn.Sequential(nn.Linear(3, 2).requires_grad_(False), nn.Linear(2, 2)))
    >>> sum(value.numel() for value in network[0].parameters() if value.requires_grad)
    5
    >>> [name for name, _ in merge(network)[0].named_parameters()]
    ['bias', 'weight']
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.utils import parametrize

from metapl.models.freezing import matching
from metapl.registry.errors import InputError

Adapter: TypeAlias = Callable[[nn.Module], nn.Module]
"""Puts adapters into a module, in place, and returns it."""


class LowRank(nn.Module):
    """W + alpha / rank · up · down, for a weight W whose first dimension is that of the outputs."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        outputs, inputs = weight.flatten(1).shape
        inner = min(rank, outputs, inputs)
        self.down = nn.Parameter(nn.init.normal_(weight.new_empty(inner, inputs), std=inputs**-0.5))
        self.up = nn.Parameter(weight.new_zeros(outputs, inner))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with what was learnt, in its own shape."""
        return weight + self.scale * (self.up @ self.down).view_as(weight)


def none() -> Adapter:
    """No adapters."""
    return lambda module: module


def lora(*, rank: int = 4, alpha: float = 4.0, layers: str = "*") -> Adapter:
    """Low-rank adapters: W + alpha / rank · up · down for frozen weights W of linear layers and of 1×1 convolutions.

    up starts at zero, so that the network starts as it is. Each has rank · (inputs + outputs) numbers; the rank is at
    most the smaller side. Weights that several layers share have none. Hu et al., "LoRA: Low-Rank Adaptation of Large
    Language Models", ICLR 2022. Cost: up · down in every pass, rank multiplications for each entry of W.

    Args:
        rank: of the change of a weight.
        alpha: the factor of the change is alpha / rank.
        layers: `PATTERN|PATTERN`, names of layers as in `metapl.models.freezing`.

    Raises:
        ValueError: a rank below 1, or an alpha that is not above 0.
        InputError: raised by the adapter, for a module without such a layer.
    """
    if rank < 1:
        raise ValueError(f"rank={rank} must be at least 1")
    if not alpha > 0:
        raise ValueError(f"alpha={alpha} must be above 0")

    def adapt(module: nn.Module) -> nn.Module:
        found = _frozen_layers(module)
        if not found:
            raise InputError(
                "adapt: no linear layer or 1×1 convolution is frozen: let freeze match one, or leave adapt out",
                *("adapt", "freeze"),
            )
        for name in _in_order(found, layers):
            layer = found[name]
            weight = layer.weight
            assert isinstance(weight, Tensor)
            parametrize.register_parametrization(layer, "weight", LowRank(weight, rank, alpha))
        return module

    return adapt


ADAPTERS: dict[str, Callable[..., Adapter]] = {"none": none, "lora": lora}
"""The adapters by name."""


def _in_order(found: dict[str, nn.Module], text: str) -> list[str]:
    """The names of layers that match, in the order of the module, in which adapters draw where they start."""
    chosen = matching(list(found), text, "adapt")
    return [name for name in found if name in chosen]


def _frozen_layers(module: nn.Module) -> dict[str, nn.Module]:
    uses = Counter(id(value) for _, value in module.named_parameters(remove_duplicate=False))
    return {
        name: layer
        for name, layer in module.named_modules()
        if _is_matrix(layer)
        and (weight := layer._parameters.get("weight")) is not None
        and not weight.requires_grad
        and uses[id(weight)] == 1
    }


def _is_matrix(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return layer.groups == 1 and set(layer.kernel_size) == {1}
    return isinstance(layer, nn.Linear)


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is of an adapter."""
    return name.endswith((".parametrizations.weight.0.down", ".parametrizations.weight.0.up"))


def merge(module: nn.Module) -> nn.Module:
    """The same function without adapters, in place: what they have learnt is added to the weights."""
    for layer in [*module.modules()]:
        if any(isinstance(part, LowRank) for part in layer.modules() if _is_matrix(layer)):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return module
