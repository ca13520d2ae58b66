"""Files: written whole or not at all, and read without unpickling anything."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from metapl.errors import InputError
from metapl.mpl import Network


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Have `save` write a temporary file beside `path`, then move it there in one step.

    Raises:
        InputError: the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(temporary)
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}): name a file that you may write"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write(path, lambda temporary: temporary.write_text(text))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def save_networks(path: Path, networks: dict[str, Network]) -> None:
    """Write networks as safetensors; tensors are named NETWORK/params/NAME and NETWORK/buffers/NAME."""
    tensors = {
        f"{name}/{kind}/{key}": value.detach().cpu().contiguous().clone()
        for name, network in networks.items()
        for kind, values in network._asdict().items()
        for key, value in values.items()
    }
    write(path, lambda temporary: save_file(tensors, temporary))


def load_networks(path: Path) -> dict[str, Network]:
    """Read what `save_networks` wrote.

    Raises:
        InputError: no such file, or one that is damaged.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}): is the run complete?") from None
    networks: dict[str, Network] = {}
    for name, value in tensors.items():
        owner, kind, key = [*name.split("/", 2), "", ""][:3]
        if kind not in Network._fields:
            raise InputError(f"{path} holds {name!r}, which is no tensor of a network: is it a file of `metapl train`?")
        getattr(networks.setdefault(owner, Network({}, {})), kind)[key] = value
    return networks
