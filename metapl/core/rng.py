"""Randomness as a value.

A key is an int64 scalar tensor. Whoever needs randomness takes a key as an argument; the same key gives the same
numbers, on every device, and nothing global is read or written. Derive keys with `split` and `fold_in`, and use
each for one purpose. The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which passes BigCrush:
number i of key k is mix(k + i · gamma), so a draw costs about ten integer operations a number, needs no state, and
can be vectorised over keys by `torch.vmap`.

Examples:
    >>> from metapl.core import rng
    >>> a, b = rng.split(rng.key(0), 2)
    >>> bool((rng.uniform(a, (3,)) == rng.uniform(a, (3,))).all())
    True
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from metapl.core.torch_private import is_batched
from metapl.core.types import Key
from metapl.registry.errors import InputError


def _signed(value: int) -> int:
    """A 64-bit word as torch's int64 holds it."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


GAMMA = _signed(0x9E3779B97F4A7C15)
"""The odd constant of SplitMix64 that counts up its state."""
_MULTIPLY_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = _signed(0x94D049BB133111EB)
_SALT = _signed(0xD1B54A32D192ED03)  # keeps derived keys apart from the numbers drawn with the same key


def _shift(word: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own is arithmetic."""
    return (word >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _times(word: Tensor, constant: int) -> Tensor:
    """word · constant, modulo 2⁶⁴; `word` may be overwritten.

    For a C++ compiler no signed number overflows, and what it makes of one that does is anything. So in code that is
    generated the factors are unsigned. Outside of it torch does not have such products on all devices, and needs none.
    """
    if not torch.compiler.is_compiling():
        return word.mul_(constant)
    factor = torch.full((), constant, dtype=torch.int64, device=word.device)
    return (word.view(torch.uint64) * factor.view(torch.uint64)).view(torch.int64)


def _mix(word: Tensor) -> Tensor:
    """The mixing function of SplitMix64; `word` is overwritten, so that no memory is taken for each step."""
    word = _times(word.bitwise_xor_(_shift(word, 30)), _MULTIPLY_1)
    word = _times(word.bitwise_xor_(_shift(word, 27)), _MULTIPLY_2)
    return word.bitwise_xor_(_shift(word, 31))


def _mixed(word: int) -> int:
    """`_mix` of an integer, without a tensor: an operation on one takes longer than all of this."""
    word %= 2**64
    word = (word ^ word >> 30) * _MULTIPLY_1 % 2**64
    word = (word ^ word >> 27) * _MULTIPLY_2 % 2**64
    return _signed(word ^ word >> 31)


def key(seed: int) -> Key:
    """The key of an integer seed."""
    return fold_in(torch.tensor(_SALT), seed)


def fold_in(key: Key, data: int | Tensor) -> Key:
    """A new key from a key and an integer, such as a step number; from a tensor of integers, as many keys.

    Raises:
        InputError: `data` is neither.
    """
    if not isinstance(data, int | Tensor):
        data = _integer(data)
    if isinstance(data, int):
        return _mix(key ^ _mixed(data + _SALT))
    return _mix(key ^ _mix(data.to(key.device, torch.int64) + _SALT))


def _integer(data: int) -> int:
    try:
        return operator.index(data)
    except TypeError:
        raise InputError(f"keys are made from integers: {data!r} is a {type(data).__name__}") from None


def require_one(key: Key | None) -> None:
    """Refuse several keys where one is wanted.

    Raises:
        InputError: `key` has axes.
    """
    if key is not None and key.ndim:
        raise InputError(f"key has the shape {list(key.shape)}: a pass takes one of these keys, such as key[0]")


def split(key: Key, count: int) -> tuple[Key, ...]:
    """`count` independent keys; of several keys `[...]`, so many of each."""
    folds = torch.tensor([_mixed(index + _SALT) for index in range(count)], dtype=torch.int64, device=key.device)
    return _mix(key[..., None] ^ folds).unbind(-1)


def _counted(count: int, device: torch.device) -> Tensor:
    """1 … count."""
    # A generator of code takes a range for an index, and cannot write its large multiples down. After `^` it does not.
    counter = torch.arange(1, count + 1, device=device)
    return counter ^ 0 if torch.compiler.is_compiling() else counter


def bits(
    key: Key, shape: Sequence[int], device: torch.device | str | None = None, rows: Tensor | None = None
) -> Tensor:
    """Uniform 64-bit words, int64, of the given shape.

    With `rows` `[shape[0]]`, these rows of a taller array: whoever draws an array in parts draws the same numbers.
    """
    key = key if device is None else key.to(device)
    if rows is None:
        counter = _counted(math.prod(shape), key.device)
    else:
        width = math.prod(shape[1:])
        counter = rows.to(key.device)[:, None] * width + _counted(width, key.device)
    return _mix(key + _times(counter, GAMMA)).reshape(tuple(shape))


def uniform(
    key: Key,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """Uniform in (0, 1), both ends excluded: odd multiples of 2⁻²⁴ in float32, 2⁻⁵³ in float64; `rows` as in `bits`."""
    digits = 1 - round(math.log2(torch.finfo(dtype).eps))
    odd = _shift(bits(key, shape, device, rows), 64 - digits).bitwise_or_(1)
    return odd.to(dtype).mul_(2.0**-digits)


def normal(
    key: Key,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normal, by the inverse of the distribution function."""
    return uniform(key, shape, dtype, device).mul_(2.0).sub_(1.0).erfinv_().mul_(math.sqrt(2.0))


def randint(key: Key, shape: Sequence[int], high: int, device: torch.device | str | None = None) -> Tensor:
    """Integers 0 … high − 1, int64; the bias is below high · 2⁻⁵³."""
    return (uniform(key, shape, torch.float64, device) * high).to(torch.int64)


def permutation(key: Key, count: int, device: torch.device | str | None = None) -> Tensor:
    """A random order of 0 … count − 1, int64."""
    return torch.argsort(bits(key, (count,), device))


def gumbel(
    key: Key,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard Gumbel, drawn in float32 at least; with the same key it is the noise of `categorical`."""
    drawn = uniform(key, shape, torch.promote_types(dtype, torch.float32), device)
    return -torch.log(-torch.log(drawn))


def categorical(key: Key, logits: Tensor) -> Tensor:
    """One class index per row of `logits` `[..., classes]`, by the Gumbel-max trick."""
    return torch.argmax(logits + gumbel(key, logits.shape, logits.dtype, logits.device), dim=-1)


@contextmanager
def seeded(key: Key) -> Iterator[None]:
    """Seed torch's global generators within the block and restore them after: for code that draws from them.

    Under `torch.vmap` over keys there is no one seed, so they are left alone; torch refuses what draws from them there.
    They are left alone under `torch.compile` too, where what draws from them is not a function of the key.
    """
    if torch.compiler.is_compiling() or is_batched(key):
        yield
        return
    # Not torch.manual_seed: while CUDA is not in use it queues a call, with a formatted stack trace, for later.
    generators = [torch.default_generator, *(torch.cuda.default_generators if torch.cuda.is_initialized() else ())]
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(int(key))
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
