"""Small files that claim to be large, or are once they are unpacked: refused by what their headers say."""

import gzip
import io
import pickle
import struct
import threading
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from pictures import random_levels, save
from published import write_mnist

from metapl.data.formats import arrays, decode, images, limits, safe_pickle, tables
from metapl.data.formats.csv_file import Table
from metapl.data.sources import find
from metapl.registry.errors import InputError
from metapl.studies import search_space, specification


@pytest.fixture(autouse=True)
def modest(monkeypatch):
    """16 MiB, so that a test that fails does not take all memory."""
    monkeypatch.setenv(limits.VARIABLE, str(2**-6))


def refused(act, match, most=8 * 2**20):
    """The refusal, for which Python and numpy allocate no more than so many bytes at a time."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=match) as caught:
            act()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < most
    return str(caught.value)


def header(shape, kind="|u1"):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": kind, "fortran_order": False, "shape": shape})
    return content.getvalue()


def test_a_zip_bomb_of_arrays(tmp_path):
    """Three arrays of 8 MiB each, in 25 kB."""
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x", "y", "x_unlabelled"):
            archive.writestr(f"{name}.npy", header((2**13, 2**10)) + bytes(2**23))
    assert (tmp_path / "d.npz").stat().st_size < 30_000
    told = refused(lambda: find.load(str(tmp_path / "d.npz")), "GiB in memory, where at most")
    assert limits.VARIABLE in told


@pytest.mark.parametrize("kind", ["|u1", "<f8", "<U0", "|V0"])
@pytest.mark.parametrize("shape", [(10**12,), (10**12, 3), (10**6, 10**6, 3), (10**12, 0), (-5, 3)])
def test_an_array_that_claims_more_than_there_is(tmp_path, kind, shape):
    (tmp_path / "x.npy").write_bytes(header(shape, kind) + bytes(64))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header(shape, kind))
    for name in ("x.npy", "d.npz"):
        refused(lambda name=name: arrays.load(tmp_path / name), name.replace(".", r"\."))


def test_arrays_of_several_files_are_added_up(tmp_path):
    for name in ("x", "y", "x_unlabelled"):
        np.save(tmp_path / f"{name}.npy", np.zeros((2**13, 2**10), np.uint8))
    refused(lambda: arrays.load(tmp_path), "0.0 GiB in memory")


@pytest.mark.parametrize("shape", [(6, 0), (6, 0, 4), (6, 4, 0), (6, 1, 0, 4), (0, 3)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.int64])
def test_examples_without_numbers(tmp_path, shape, kind):
    np.savez(tmp_path / "d.npz", x=np.zeros(shape, kind), y=np.arange(shape[0]) % 2)
    refused(lambda: find.load(str(tmp_path / "d.npz")), "no numbers in an example|holds nothing")


@pytest.mark.parametrize("large", [1e300, 3e38])
def test_numbers_that_leave_their_type(tmp_path, large):
    x = np.arange(24.0).reshape(12, 2)
    x[3, 1] = large
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(12) % 2, x_test=x[:4], y_test=np.arange(4) % 2)
    if large > 1e150:
        refused(lambda: find.load(str(tmp_path / "d.npz")), "in another unit")
    else:
        assert torch.isfinite(find.load(str(tmp_path / "d.npz")).x).all()
    np.savez(tmp_path / "e.npz", x=x[:3] / 100, y=np.arange(3) % 2, x_test=x, y_test=np.arange(12) % 2)
    refused(lambda: find.load(str(tmp_path / "e.npz")), "beyond reason|another unit")


@pytest.mark.parametrize("y", [np.array([2**64 - 1, 0, 1, 2], np.uint64), np.array([1e30, 0, 1, 2]), np.arange(70_000)])
def test_labels_that_are_no_classes(tmp_path, y):
    np.savez(tmp_path / "d.npz", x=np.zeros((len(y), 2), np.float32), y=y)
    refused(lambda: find.load(str(tmp_path / "d.npz")), "no class", most=64 * 2**20)


def test_texts_with_letters_that_there_are_not(tmp_path):
    head = header((4,), "<U1")
    for letter in (0x110000, 0xFFFFFFFF, 0xD800):
        (tmp_path / "x.npy").write_bytes(head + struct.pack("<4I", 97, 98, 99, letter))
        refused(lambda: arrays.load(tmp_path / "x.npy"), "letters that no encoding has")


def test_a_gzip_bomb_in_the_place_of_images(tmp_path):
    part = random_levels(4, 3, 3), np.arange(4, dtype=np.uint8) % 2
    write_mnist(tmp_path, part, part)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    for sides, match in (((4, 3, 3), "has more bytes for 4×3×3"), ((2**20, 8, 8), "0.1 GiB in memory")):
        path.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, *sides) + bytes(2**25)))
        refused(lambda: find.load(str(tmp_path)), match)


def picture(height, width):
    """A valid PNG of black pixels, a thousandth of their number in bytes."""
    parts = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)]
    parts += [b"IDAT" + zlib.compress(bytes((width + 1) * height), 9), b"IEND"]
    sized = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(sized)


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PIXELS", 10_000)
    for name, size in (("a", (100, 101)), ("b", (1, 10_001))):
        (tmp_path / f"{name}.png").write_bytes(picture(*size))
        refused(lambda name=name: decode.decode(tmp_path / f"{name}.png", (1, 4, 4)), "more than 10,000 pixels")
        refused(lambda name=name: decode.header(tmp_path / f"{name}.png"), "more than 10,000 pixels")
    (tmp_path / "c.png").write_bytes(picture(100, 100))
    assert decode.decode(tmp_path / "c.png", (1, 4, 4)).shape == (1, 4, 4)


def test_large_pictures_are_decoded_one_after_another(tmp_path, monkeypatch):
    """Twelve of the largest allowed, by many threads: never two at a time."""
    monkeypatch.setattr(limits, "decoding", limits._Share(100))
    for number in range(12):
        save(tmp_path / f"{number}.png", random_levels(10, 10, seed=number))
    now, most, upright = [], [], decode._upright

    def counted(image):
        now.append(threading.get_ident())
        most.append(len(now))
        time.sleep(0.002)  # for the others to come in, if they may
        try:
            return upright(image)
        finally:
            now.pop()

    monkeypatch.setattr(decode, "_upright", counted)
    assert len(images.gather([tmp_path], (1, 10, 10)).x) == 12
    assert most == [1] * 12


def test_a_share_is_given_back_where_something_goes_wrong():
    share = limits._Share(10)
    for _ in range(3):
        with pytest.raises(ValueError, match="wrong"), share.of(10):
            raise ValueError("wrong")


def nested_tuples(depth):
    return b")" + b"\x85" * depth


BOMBS = {
    "a memo": b"]r" + struct.pack("<I", 2**31 - 1) + b".",
    "a memo in text": b"]p99999999999\n.",
    "bytes": b"\x8e" + struct.pack("<Q", 2**40) + b".",
    "a key of tuples": b"}" + nested_tuples(200_000) + b"Ns.",
    "a frozen set of tuples": b"\x80\x04(" + nested_tuples(200_000) + b"\x91.",
    "lists": b"]" * 5000 + b"a" * 4999 + b".",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_that_asks_for_much(tmp_path, name):
    """Where the pickle would be followed, Python itself would say in other words that it has no memory."""
    (tmp_path / "batch").write_bytes(BOMBS[name])
    reasons = {
        "a memo": "a memo of 2,147",
        "a memo in text": "a memo of 99,999",
        "a key of tuples": "more than 1,000 tuples",
    }
    match = rf"no complete pickle of arrays \({reasons.get(name, '')}"
    refused(lambda: safe_pickle.load(tmp_path / "batch"), match, most=64 * 2**20)


def test_labels_that_multiply(tmp_path):
    """A list of ten times the same list, ten levels deep, which numpy would make 10¹⁰ numbers of."""
    labels = [0] * 10
    for _ in range(9):
        labels = [labels] * 10
    held = {"data": np.zeros((10, 3072), np.uint8), "labels": labels}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (tmp_path / name).write_bytes(pickle.dumps(held, protocol=2))
    refused(lambda: find.load(str(tmp_path)), "no list of whole numbers")


def test_categories_that_multiply():
    """1,000 rows of 100 columns with 100 categories each: 10⁷ features of 4 bytes."""
    names = [str(one) for one in range(100)]
    columns = [{"name": name, "kind": "category", "categories": names} for name in names]
    table = Table("t.csv", dict.fromkeys(names, tuple(names) * 10), tuple(range(1000)))
    refused(lambda: tables.encode(columns, table), "the features: 0.0 GiB")


def test_a_header_of_many_columns_is_looked_at_once(tmp_path):
    """The time grows with their number, not with its square: 200,000 took minutes."""
    names = [f"n{number}" for number in range(200_000)]
    (tmp_path / "t.csv").write_text(",".join([*names, "n0"]) + "\n" + "1," * 200_000 + "1\n")
    with pytest.raises(InputError, match="two columns are named 'n0'"):
        find.load(str(tmp_path / "t.csv"))


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "many"])
def test_a_limit_that_is_none(monkeypatch, text):
    monkeypatch.setenv(limits.VARIABLE, text)
    with pytest.raises(InputError, match=f"^{limits.VARIABLE}={text} must be a number of GiB"):
        limits.most()


@pytest.mark.parametrize("count", [2_000_000_000, 10**40])
def test_numbers_of_runs_that_are_a_slip_of_the_hand(count):
    tables = {"common": {"validation": 100}, "arms": {"none": {}, "exact": {}}}
    for key in ("seeds",):
        refused(lambda key=key: specification.build({**tables, key: count}, "here"), r"^here: seeds: .* lower them$")
    for key in ("seeds", "trials"):
        about = specification.build({**tables, "tune": {key: count, "ema": [0.9, 0.99]}}, "here")
        refused(lambda about=about, key=key: search_space.read(about, "x"), rf"^\[tune\] of x: {key}: .* lower them$")


def test_runs_are_counted_over_settings_arms_and_seeds():
    many = {"over": {"labels": list(range(10, 1010))}, "arms": {"none": {}, "exact": {}}}
    refused(lambda: specification.build({**many, "seeds": 501}, "here"), r"1,000 × 2 × 501 are more than 1,000,000")
    given = {f"key{number}": list(range(100)) for number in range(8)}
    refused(lambda: specification.combinations(given), r"combinations of values: 100 × .* are more than")


def test_a_million_seeds_are_a_range():
    about = specification.build({"arms": {"none": {}}, "seeds": 1_000_000, "first_seed": 5}, "here")
    assert about.seeds == range(5, 1_000_005)
