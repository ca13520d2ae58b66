"""Ways to spoil a file: pure functions of its bytes and a random source, and some of the place that it is in."""

import json
import os
import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Spoil: TypeAlias = Callable[[bytes, random.Random], bytes]

HUGE = [
    b"1e400",
    b"-1",
    b"0",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"9" * 30,
    b"9" * 5000,
    b"2147483648",
    b"1e-400",
    b"0.5",
]
WORDS = [b"null", b"true", b"[]", b"{}", b'""', b'"x"', b"[[]]", b"[[0, 1000000000000]]", b'"\\ud800"', b'"a\\u0000b"']


def truncated(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def flipped(data: bytes, draw: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8, 64)) if data else 0):
        made[draw.randrange(len(made))] ^= 1 << draw.randrange(8)
    return bytes(made)


def flipped_early(data: bytes, draw: random.Random) -> bytes:
    """In what most formats have for a header."""
    return flipped(data[:128], draw) + data[128:]


def filled(data: bytes, draw: random.Random) -> bytes:
    start, length = draw.randrange(len(data) + 1), draw.choice((1, 2, 4, 8, 100))
    value = draw.choice((b"\x00", b"\xff", b"\x7f", b"\x80", b"["))
    return data[:start] + value * len(data[start : start + length]) + data[start + length :]


def inserted(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    return data[:start] + draw.randbytes(draw.choice((1, 3, 100, 5000))) + data[start:]


def cut_out(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    return data[:start] + data[start + draw.choice((1, 2, 7, 100)) :]


def repeated(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    return data[:start] + data[start : start + 50] * draw.choice((1, 2, 1000)) + data[start:]


def emptied(data: bytes, draw: random.Random) -> bytes:
    return draw.choice((b"", b"\n", b"\x00" * 512, b" "))


def marked(data: bytes, draw: random.Random) -> bytes:
    """With the mark of an encoding, whether it is that or not."""
    return draw.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")) + data


def recoded(data: bytes, draw: random.Random) -> bytes:
    return (data.decode("latin1") + "é−").encode(
        draw.choice(("utf-16", "utf-32", "utf-7", "cp1252", "latin1")), "replace"
    )


def numbered(data: bytes, draw: random.Random) -> bytes:
    """With another number in the place of one that is written in digits."""
    places = [found.span() for found in re.finditer(rb"-?\d[\d.]*", data)]
    if not places:
        return flipped(data, draw)
    start, end = draw.choice(places)
    return data[:start] + draw.choice(HUGE + WORDS) + data[end:]


def reworded(data: bytes, draw: random.Random) -> bytes:
    """With something else in the place of a word or a text."""
    places = [found.span() for found in re.finditer(rb'"[^"\n]*"|\w+', data[:100_000])]
    if not places:
        return flipped(data, draw)
    start, end = draw.choice(places)
    return data[:start] + draw.choice([*HUGE, *WORDS, b"\x1b[31m", b"a" * 10_000]) + data[end:]


def nested(data: bytes, draw: random.Random) -> bytes:
    start, depth = draw.randrange(len(data) + 1), draw.choice((10, 2000, 200_000))
    return data[:start] + draw.choice((b"[", b'{"a":', b"(", b"a.")) * depth + data[start:]


def lied(data: bytes, draw: random.Random) -> bytes:
    """With a number that looks like a size made large, be it of 2, 4 or 8 bytes and in either order."""
    width, order = draw.choice("HIQ"), draw.choice("<>")
    size = struct.calcsize(width)
    start = draw.randrange(max(min(len(data), 512) - size, 1))
    value = draw.choice((0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63)) % 2 ** (8 * size)
    return data[:start] + struct.pack(order + width, value) + data[start + size :]


def png_lied(data: bytes, draw: random.Random) -> bytes:
    """A PNG that says to be of another size, with the checksum for it."""
    if data[:4] != b"\x89PNG":
        return lied(data, draw)
    sides = [draw.choice((0, 1, 7, 10_000, 50_000, 2**31 - 1)) for _ in range(2)]
    head = b"IHDR" + struct.pack(">II", *sides) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def npy_lied(data: bytes, draw: random.Random) -> bytes:
    """An array that says to have another shape or type."""
    shape = draw.choice(
        ("(0,)", "(24, 0)", "(0, 3)", f"({10**12},)", f"({10**12}, 0)", "(-1, 3)", "(3, -24)", "()", "24")
    )
    kind = draw.choice(("<f4", "|u1", "<U0", "|V0", "|O", ">c16", "<M8[s]", "<U1000000000", "|b1", "<f16"))
    pattern, new = draw.choice(((rb"\([\d, ]*\)", shape), (rb"'[<|>][a-z]\d+'", repr(kind))))
    found = re.search(pattern, data)
    if data[:6] != b"\x93NUMPY" or not found:
        return lied(data, draw)
    head = data[10 : 10 + struct.unpack("<H", data[8:10])[0]]
    made = re.sub(pattern, new.encode(), head.rstrip(), count=1).ljust(len(head) - 1) + b"\n"
    return data[:8] + struct.pack("<H", len(made)) + made + data[10 + len(head) :]


def json_changed(data: bytes, draw: random.Random) -> bytes:
    """Valid JSON with one value, at any depth, of another type or size."""
    try:
        value = json.loads(data)
    except ValueError:
        return reworded(data, draw)
    made = _changed(value, draw)
    return json.dumps(made).encode()


ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\x1b[2J",
    "../..",
    [],
    {},
    [[[]]],
    [1] * 1000,
    {"a": {}},
]


def _changed(value: Any, draw: random.Random) -> Any:
    if isinstance(value, (dict, list)) and value and draw.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key, made = draw.choice(keys), value.copy()
        if draw.random() < 0.1:
            del made[key]
        else:
            made[key] = _changed(value[key], draw)
        return made
    return draw.choice([*ODD, [value], {"x": value}, str(value)])


SPOILS: list[Spoil] = [
    truncated, flipped, flipped_early, filled, inserted, cut_out, repeated, emptied, marked, recoded, numbered,
    reworded, nested, lied, png_lied, npy_lied, json_changed,
]  # fmt: skip


def replace(path: Path, others: list[Path], draw: random.Random) -> str:
    """Put something else in the place of a file, and say what."""
    what = draw.choice(("nothing", "folder", "loop", "dangling", "pipe", "device", "other", "other"))
    other = draw.choice(others).read_bytes()
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what in ("loop", "dangling", "device"):
        path.symlink_to({"loop": path.name, "dangling": "nowhere", "device": "/dev/zero"}[what])
    elif what == "other":
        path.write_bytes(other)
    return what
