"""Networks in safetensors files: written whole or not at all, and read without unpickling anything."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save

from metapl.core.types import Variables
from metapl.files import storage
from metapl.files.storage import write, write_json, write_text
from metapl.registry.errors import InputError

__all__ = ["CHECKPOINT", "load_networks", "save_networks", "write", "write_json", "write_text"]


CHECKPOINT = Path("checkpoints/final.safetensors")
"""The final weights, below the folder of a run."""


def save_networks(path: Path, networks: dict[str, Variables]) -> None:
    """Write networks as safetensors; tensors are named NETWORK/params/NAME and NETWORK/buffers/NAME.

    Raises:
        InputError: the file cannot be written. Training may have taken days, so the networks are then written to
            the folder for temporary files, the current folder or the home folder, and the message says where.
    """
    tensors = {
        f"{name}/{kind}/{key}": value.detach().cpu().contiguous().clone()
        for name, network in networks.items()
        for kind, values in network._asdict().items()
        for key, value in values.items()
    }
    # `save_file` of safetensors ignores the umask and has errors of its own.
    data = save(tensors)
    try:
        write(path, lambda temporary: temporary.write_bytes(data))
    except InputError as error:
        reason = str(error).rpartition(": ")[0]
        place = _rescue(path, data)
        if place is None:
            raise InputError(
                f"{reason}, nor anywhere else: the trained networks are lost; make room and train again"
            ) from None
        raise InputError(f"{reason}: the trained networks are in {place}; make room and move them there") from None


def _rescue(path: Path, data: bytes) -> Path | None:
    """Write to the first other place that can be written, and return it; None if there is none."""
    for folder in (tempfile.gettempdir(), Path.cwd(), os.path.expanduser("~")):
        try:
            place = Path(tempfile.mkdtemp(prefix="metapl-", dir=folder)) / path.name
        except OSError:
            continue
        try:
            write(place, lambda temporary: temporary.write_bytes(data))
        except InputError:
            place.parent.rmdir()
        else:
            return place
    return None


def load_networks(path: Path) -> dict[str, Variables]:
    """Read what `save_networks` wrote.

    Raises:
        InputError: no such file, or one that is damaged.
    """
    try:
        storage.require_regular(path)
        tensors = load_file(path)
    except Exception as error:  # a damaged file can fail in ways of its own beside SafetensorError
        raise InputError(f"{path} cannot be read ({error}): is the run complete?") from None
    networks: dict[str, Variables] = {}
    for name, value in tensors.items():
        owner, kind, key = [*name.split("/", 2), "", ""][:3]
        if kind not in Variables._fields:
            raise InputError(f"{path} holds {name!r}, which is no tensor of a network: is it a file of `metapl train`?")
        getattr(networks.setdefault(owner, Variables({}, {})), kind)[key] = value
    return networks
