"""What has been embedded already: a file for each batch, named by all that its features depend on.

A batch is known by its content, so that examples in another file or another order of batches are found again, and
nothing has to be noticed as stale. A call that was killed goes on where it stopped. Files are written whole or not at
all, read without pickle, and a damaged one counts as none.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from metapl.data.formats import npy
from metapl.files import cache, storage
from metapl.registry.errors import InputError

LOG = logging.getLogger("metapl")
"""Where a damaged file is spoken of."""

VERSION = 1
"""Of what a file holds: float16 `[examples, features]`, in an archive, whose checksum is compared when it is read."""


def default() -> Path:
    """See `metapl.files.cache.folder`."""
    return cache.folder("features")


def content(examples: Tensor | Sequence[str]) -> str:
    """SHA-256 of stored examples or of texts, in hexadecimal."""
    if not isinstance(examples, Tensor):
        return hashlib.sha256(json.dumps(list(examples)).encode()).hexdigest()
    array = examples.detach().cpu().contiguous().numpy()
    found = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def place(folder: Path, *parts: Any) -> Path:
    """The file for what the parts say."""
    key = hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()
    return folder / key[:2] / f"{key}.npz"


def read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The features of a file; None if it is not there or damaged."""
    if not path.exists():
        return None
    try:
        found = npy.load(path, lambda names: {"x": "x"} if "x" in names else {}).get("x")
    except InputError as error:
        LOG.warning("%s: computed again", str(error).rpartition(": ")[0])
        return None
    if found is None or found.shape != shape or found.dtype != np.float16:
        LOG.warning("%s holds something else: computed again", path)
        return None
    return found


def write(path: Path, features: np.ndarray) -> None:
    """Write a file.

    Raises:
        InputError: it cannot be written.
    """
    storage.write(path, lambda temporary: np.savez(temporary, x=features))
