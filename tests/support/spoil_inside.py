"""Ways to spoil what is inside of a file whose own format stays right, so that a reader gets further."""

import gzip
import io
import random
import re
import struct
import tarfile
import zipfile
from pathlib import Path

from spoil import HUGE, SPOILS, Spoil, flipped, json_changed, replace

NAMES = (
    "../x.png",
    "/x.png",
    "0.cls",
    "a/7.seg.png",
    "\x1b[2J.png",
    "é.png",
    "x" * 300 + ".png",
    ".png",
    "x.npy.npy",
    "",
)


def _some(data: bytes, draw: random.Random) -> bytes:
    return draw.choice(SPOILS)(data, draw)


def in_gzip(data: bytes, draw: random.Random) -> bytes:
    raw = gzip.decompress(data)
    return gzip.compress(draw.choice((_some(raw, draw), bytes(2**26), raw + bytes(2**26), raw * 2)))


def in_zip(data: bytes, draw: random.Random) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        names = given.namelist()
        chosen = draw.choice(names)
        for name in names:
            content = given.read(name)
            if name != chosen:
                archive.writestr(name, content)
            elif draw.random() < 0.8:
                archive.writestr(name, _some(content, draw))
            elif draw.random() < 0.5:
                archive.writestr(draw.choice(NAMES) or "x", content)
    return made.getvalue()


def in_tar(data: bytes, draw: random.Random) -> bytes:
    made = io.BytesIO()
    kinds = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as given,
        tarfile.open(fileobj=made, mode="w", format=draw.choice(kinds)) as archive,
    ):
        members = given.getmembers()
        chosen = draw.randrange(len(members))
        for number, head in enumerate(members):
            content = given.extractfile(head).read()
            if number == chosen:
                way = draw.choice(("content", "content", "name", "type", "twice", "gone"))
                if way == "gone":
                    continue
                content = _some(content, draw) if way == "content" else content
                head.name = draw.choice(NAMES) if way == "name" else head.name
                head.type = (
                    draw.choice((b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"9")) if way == "type" else head.type
                )
                if way == "twice":
                    archive.addfile(head, io.BytesIO(content))
            head.size = len(content)
            archive.addfile(head, io.BytesIO(content))
    return made.getvalue()


def in_safetensors(data: bytes, draw: random.Random) -> bytes:
    (size,) = struct.unpack("<Q", data[:8])
    head = json_changed(data[8 : 8 + size], draw)
    return struct.pack("<Q", len(head)) + head + data[8 + size :]


TOML = [
    "true",
    "-1",
    "1e308",
    "nan",
    "inf",
    '""',
    '"\\u0000"',
    "[]",
    "[[]]",
    "{}",
    "1979-05-27",
    "0x10",
    '"digits"',
    '"moons"',
]

KEYS = ["seed", "log", "model", "grad", "trials", "x", "a.b", "seeds", '"a b"']


def in_toml(data: bytes, draw: random.Random) -> bytes:
    """One value, or one key, or one line more or less."""
    lines = data.decode().splitlines()
    places = [number for number, line in enumerate(lines) if "=" in line]
    at = draw.choice(places)
    key, _, value = lines[at].partition(" = ")
    way = draw.choice(("value", "value", "value", "key", "gone", "twice", "table"))
    if way == "value":
        values = [*TOML, *(one.decode() for one in HUGE), f"[{value}]", f"[{value}, {value}]"]
        lines[at] = f"{key} = {draw.choice(values)}"
    elif way == "key":
        lines[at] = f"{draw.choice(KEYS)} = {value}"
    elif way == "gone":
        del lines[at]
    elif way == "twice":
        lines.insert(at, lines[at])
    else:
        lines.insert(at, draw.choice(("[common]", "[arms]", "[x]", "[[arms]]", "[arms.none.x]", "[over]", "[tune]")))
    return "\n".join([*lines, ""]).encode()


def in_pickle(data: bytes, draw: random.Random) -> bytes:
    """An instruction that asks for much, or another number, in the middle of it."""
    bomb = draw.choice((
        b"r" + struct.pack("<I", 2**31 - 1), b"\x8e" + struct.pack("<Q", 2**60), b"p999999999999\n",
        b"(" * 1000, b")" + b"\x85" * 100_000 + b"0", b"I" + b"9" * 5000 + b"\n0", b"cos\nsystem\n0", b"2" * 100,
    ))  # fmt: skip
    start = draw.choice([found.start() for found in re.finditer(rb"[q(K\]}]", data[:2000])] or [0])
    return data[:start] + bomb + data[start:]


def in_table(data: bytes, draw: random.Random) -> bytes:
    """One cell."""
    lines = [re.split(r"([,\t])", line) for line in data.decode().splitlines()]
    row = draw.choice(lines)
    cells = [
        "",
        "nan",
        "1e400",
        "1e308",
        "-1e308",
        "1,5",
        '"',
        '"a\nb"',
        "=1+1",
        "é",
        "\x7f",
        "c0",
        "x" * 200_000,
        ",",
        "NA",
    ]
    row[draw.randrange(0, len(row), 2)] = draw.choice(cells)
    return "\n".join(["".join(line) for line in lines] + [""]).encode()


INSIDE: dict[str, list[Spoil]] = {
    ".gz": [in_gzip],
    ".npz": [in_zip],
    ".tar": [in_tar],
    ".safetensors": [in_safetensors],
    ".toml": [in_toml],
    ".json": [json_changed],
    ".csv": [in_table],
    ".tsv": [in_table],
    "": [in_pickle],
}
"""By the ending of the file's name; pickles of CIFAR have none."""


def spoil(folder: Path, others: list[Path], draw: random.Random) -> str:
    """Spoil a file of a folder, and say which and how."""
    path = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    name = path.relative_to(folder).as_posix()
    if draw.random() < 0.06:
        return f"{name}: {replace(path, others, draw)}"
    choices = INSIDE.get(path.suffix, SPOILS) if draw.random() < 0.6 else SPOILS
    ways = [draw.choice(choices) for _ in range(draw.choice((1, 1, 1, 2)))]
    data = path.read_bytes()
    for way in ways:
        try:
            data = way(data, draw)
        except Exception:  # what the way before has left of it is of the format no more
            data = flipped(data, draw)
    path.write_bytes(data)
    return f"{name}: {', '.join(way.__name__ for way in ways)}"
