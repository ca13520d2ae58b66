"""What makes features of examples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metapl.data.form import Form
from metapl.registry.errors import InputError


class Given(NamedTuple):
    """What an encoder is built from."""

    form: Form | None
    """Of the examples; None for texts."""
    weights: Path | None = None
    """The file of the weights; None for those that come with the network."""
    size: int = 0
    """Pixels of a side that images are resized to; 0 for those that the network is used with."""
    device: torch.device = torch.device("cpu")


class Encoder(NamedTuple):
    """A pretrained network as a function of stored examples."""

    name: str
    """As it was typed."""
    digest: str
    """SHA-256 of everything that its features depend on beside the examples, in hexadecimal."""
    features: int
    """Numbers of each example."""
    encode: Callable[[Any], Tensor]
    """`encode(examples)`: `[batch, features]`, float32 on the CPU, of stored examples `[batch, ...]` or of texts."""


def digest(tensors: Mapping[str, Tensor], *others: object) -> str:
    """SHA-256 of tensors by name, and of other things as they print."""
    found = hashlib.sha256(repr(others).encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def from_module(
    name: str, network: nn.Module, given: Given, prepare: Callable[[Tensor], Tensor], *others: object
) -> Encoder:
    """An encoder of a network `[batch, ...]` to `[batch, features]`, tried on two examples.

    Args:
        name: as it was typed.
        network: with its weights.
        given: the form of the examples, and where the network runs.
        prepare: from stored examples to what the network takes.
        others: what the features depend on beside name and weights.

    Raises:
        InputError: it cannot take the examples, or makes something else of them.
    """
    network = network.to(given.device).eval()

    def encode(x: Tensor) -> Tensor:
        with torch.no_grad():
            made = network(prepare(x.to(given.device)))
        if not isinstance(made, Tensor) or made.ndim != 2 or made.shape[0] != len(x):
            shape = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise InputError(f"model {name!r} makes {shape} of {len(x)} examples: it must make [{len(x)}, features]")
        return made.float().cpu()

    shape, images = (given.form.shape, given.form.kind == "images") if given.form else ((), False)
    try:
        features = encode(torch.zeros(2, *shape, dtype=torch.uint8 if images else torch.float32)).shape[1]
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"model {name!r} cannot take these examples ({reason}): give another --size") from None
    return Encoder(name, digest(network.state_dict(), name, *others), features, encode)
