"""Pickles of arrays and plain values, read without running anything that is in them.

A pickle is a program, and its instructions call whatever they name. Here the few names that arrays need stand for
functions of this file, and no other name exists. None of numpy's own functions is within reach: a hostile state makes
`numpy.dtype` treat bytes as pointers. Nor can a small file ask for much memory or be nested so deeply that the process
dies: its instructions are looked through before the first is followed.
"""

from __future__ import annotations

import copyreg
import io
import math
import pickle
import pickletools
import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metapl.data.formats import limits
from metapl.files import storage
from metapl.registry.errors import InputError

PLAIN = (type(None), bool, int, float, complex, str, bytes)
"""What may be in a pickle beside arrays, lists, tuples and dicts."""

DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][1-9]\d{0,5}")
"""Arrays of numbers and of strings, never of objects or records."""


class _ForbiddenError(Exception):
    """A pickle has something else in it."""


class _Callable:
    """A function that a pickle may call. It has no attribute that a pickle could set, which a function has."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise _ForbiddenError("changes a function")


class _Dtype:
    """In place of `numpy.dtype`."""

    __slots__ = ("_dtype",)

    def __init__(self, code: Any, *flags: Any) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if len(flags) > 2 or not isinstance(text, str) or not DTYPE.fullmatch(text):
            raise _ForbiddenError(f"holds an array of {reprlib.repr(code)}")
        self._dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        """Of what numpy writes, the byte order alone is news; sizes and flags follow from the code."""
        _, order, subdtype, names, fields, *_ = state
        text: Any = order.decode("latin1") if isinstance(order, bytes) else order
        if text not in ("<", ">", "|", "=") or (subdtype, names, fields) != (None, None, None):
            raise _ForbiddenError("holds an array of records")
        self._dtype = self._dtype.newbyteorder(text)

    def array(self, shape: Any, data: Any) -> np.ndarray:
        """A new array of this many bytes exactly, in the byte order of the machine."""
        raw = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(raw, (bytes, bytearray)) or not all(type(side) is int and side >= 0 for side in shape):
            raise _ForbiddenError("holds an array that is not made of bytes")
        if math.prod(shape) * self._dtype.itemsize != len(raw):
            raise pickle.UnpicklingError(f"an array of shape {reprlib.repr(shape)} with {len(raw)} bytes")
        return np.ndarray(shape, self._dtype, raw).astype(self._dtype.newbyteorder("="))


class _Array:
    """In place of an empty `numpy.ndarray` that awaits its state."""

    __slots__ = ("value",)

    def __init__(self, *_: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    if type(dtype) is not _Dtype or type(shape) is not tuple:
        raise _ForbiddenError("holds an array without a type")
    if order == "F":
        return np.ascontiguousarray(dtype.array(shape[::-1], data).T).reshape(shape)
    return dtype.array(shape, data) if axes is None else dtype.array(shape, data).transpose(axes)


def _frombuffer(*args: Any) -> _Array:
    made = _Array()
    made.value = _array(*args)
    return made


def _scalar(dtype: Any, data: Any) -> Any:
    return _array(data, dtype, (), "C").item()


def _encode(text: Any, encoding: Any) -> bytes:
    """Python 3 writes bytes so in the protocols that know none."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _ForbiddenError("calls codecs.encode")
    return text.encode("latin1")


def _no_instance(*_: Any) -> None:
    raise _ForbiddenError("calls numpy.ndarray")


NAMES = {
    ("numpy", "dtype"): _Callable(_Dtype),
    ("numpy", "ndarray"): _Callable(_no_instance),
    ("_codecs", "encode"): _Callable(_encode),
    ("__builtin__", "bytes"): _Callable(lambda: b""),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Callable(_Array) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Callable(_scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Callable(_frombuffer) for core in ("core", "_core")},
}
"""All that exists for a pickle, by module and name."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NAMES:
            raise _ForbiddenError(f"names {reprlib.repr(f'{module}.{name}')}")
        return NAMES[module, name]


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """The value with arrays in place of our stand-ins; what occurs twice is made once, so that it cannot multiply."""
    if type(value) in PLAIN:
        return value
    if type(value) is _Array and value.value is not None:
        return value.value
    if id(value) in done:
        return done[id(value)]
    if type(value) is list:
        items: list[Any] = []
        done[id(value)] = items
        items.extend(_plain(one, done) for one in value)
    elif type(value) is dict:
        entries: dict[Any, Any] = {}
        done[id(value)] = entries
        entries.update((_plain(key, done), _plain(one, done)) for key, one in value.items())
    elif type(value) is tuple:
        done[id(value)] = tuple(_plain(one, done) for one in value)
    else:
        raise _ForbiddenError(f"holds a value of type {type(value).__name__.strip('_').lower()}")
    return done[id(value)]


NESTED = 1000
"""Tuples and frozensets, in all. They are hashed by a function that calls itself, and of C, which has no limit."""


def _require_modest(data: bytes) -> None:
    """Check that a pickle does not ask for a memo larger than itself, nor for values nested too deeply to be hashed.

    Raises:
        ValueError: it does, or it is no pickle.
    """
    nested = 0
    for code, argument, _ in pickletools.genops(data):
        if "PUT" in code.name and (argument or 0) > len(data):
            raise ValueError(f"a memo of {argument:,} values in {len(data):,} bytes")
        nested += code.name.startswith(("TUPLE", "FROZENSET"))
        if nested > NESTED:
            raise ValueError(f"more than {NESTED:,} tuples")


def load(path: Path) -> Any:
    """The value of a pickle, of Python 2 or 3, that is made of numpy arrays and plain values alone.

    The texts of Python 2 are read as latin-1, which makes `str` of ASCII. Nothing that a pickle names is called.

    Args:
        path: a file of any protocol.

    Returns:
        None, a number, `str`, `bytes` or array, or lists, tuples and dicts of them. Arrays are writable and in the
        byte order of the machine.

    Raises:
        InputError: it cannot be read, is no pickle, is incomplete, or holds anything else.
    """
    # A pickle may name by number what a program registered; a cached one would not come through `find_class`.
    copyreg.clear_extension_cache()
    try:
        data = storage.read_bytes(path, limits.most())
        _require_modest(data)
        return _plain(_Reader(io.BytesIO(data), encoding="latin1").load(), {})
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a file that you may read") from None
    except _ForbiddenError as error:
        raise InputError(
            f"{path} {error}, where only arrays and plain values are read, and nothing of it was run: "
            "do not use it; get the file from its publisher"
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} is no complete pickle of arrays ({reason}): download it again") from None
