"""Tensors in a safetensors file that tells whether it is whole: its checksum is in its own header.

A file that was cut, or in which a bit has flipped, is refused. The checksum is the SHA-256 of the file with zeros where
the checksum stands, so that one rename puts both in place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from metapl.files import storage
from metapl.registry.errors import InputError

LARGEST = 2**40
"""Bytes up to which a file is read."""

_MARK, _ZEROS = b'"sha256":"', b"0" * 64


def write(path: Path, tensors: Mapping[str, Tensor], about: Any) -> None:
    """Write tensors on any device, and a JSON value that says what they are, whole or not at all.

    Raises:
        InputError: the place cannot be written.
    """
    # A copy of each, since safetensors refuses tensors that share their memory.
    ready = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    data = save(ready, {"about": json.dumps(about), "sha256": _ZEROS.decode()})
    place = data.index(_MARK + _ZEROS) + len(_MARK)
    digest = hashlib.sha256(data).hexdigest().encode()

    def put(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for part in (memoryview(data)[:place], digest, memoryview(data)[place + len(digest) :]):
                file.write(part)

    storage.write(path, put)


def read(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read what `write` wrote: the tensors, and the JSON value, which the caller checks.

    Raises:
        InputError: no such file, or one that is not as it was written.
    """
    try:
        data = storage.read_bytes(path, LARGEST)
        header = data[8 : 8 + int.from_bytes(data[:8], "little")]
        place = 8 + header.index(_MARK) + len(_MARK)
        digest = hashlib.sha256(memoryview(data)[:place])
        digest.update(_ZEROS)
        digest.update(memoryview(data)[place + len(_ZEROS) :])
        if data[place : place + len(_ZEROS)] != digest.hexdigest().encode():
            raise ValueError("its SHA-256 is not the one in it")
        return load(data), storage.parse_json(json.loads(header)["__metadata__"]["about"])
    except Exception as error:  # a damaged file can fail in many ways, and no other way to fail is of use here
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}): it was cut or has changed, remove it") from None
