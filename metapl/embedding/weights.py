"""Weights of a file, read as tensors: nothing in the file is run."""

from __future__ import annotations

import importlib.util
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from metapl.files import storage
from metapl.registry.errors import InputError

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Under which a checkpoint may hold the weights among other things."""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of one that `torch.save` wrote, of which only tensors are unpickled.

    Raises:
        InputError: it cannot be read, or holds anything else.
    """
    try:
        storage.require_regular(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # of versions of pickle: what it cannot read it refuses
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"weights {path} cannot be read ({error.strerror or error}): name the file") from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"weights {path} cannot be read as tensors alone ({reason[:120]}): save them with safetensors"
        ) from None
    for key in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"weights {path} hold no state_dict: save network.state_dict() with safetensors")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def load(network: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Put weights into a network; what it does not have, such as a classifier's last layer, is left out.

    Raises:
        InputError: a tensor of the network is missing, or has another shape.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in tensors or tensors[name].shape != wanted[name].shape]
    if missing:
        raise InputError(
            f"{where} lacks {len(missing)} of {len(wanted)} tensors of the network, such as {missing[0]!r} of shape "
            f"{list(wanted[missing[0]].shape)}: give the weights of this network"
        )
    network.load_state_dict({name: tensors[name] for name in wanted})


def shipped(package: str, file: str, remedy: str) -> Path:
    """A file that an installed package ships; the package is not imported.

    Raises:
        InputError: the package is not installed, or does not have it.
    """
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (place := Path(folder) / file).is_file():
            return place
    raise InputError(f"the weights of the model are not installed: {remedy}, or give metapl embed a file of --weights")
