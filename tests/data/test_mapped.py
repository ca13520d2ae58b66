"""Large arrays are mapped, read as they are, and copied once."""

import tracemalloc

import numpy as np
import pytest
import torch
from pictures import random_levels

from metapl.data.formats import npy
from metapl.data.sources.arrays import arrays
from metapl.registry.errors import InputError


@pytest.fixture
def mapped(monkeypatch):
    monkeypatch.setattr(npy, "MAPPED", 0)


def everything(names):
    return {name: name for name in names}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "|u1", "|b1"])
def test_what_is_mapped_is_what_numpy_reads(tmp_path, mapped, order, dtype):
    x = np.array(random_levels(7, 3, 5) % 2 if dtype == "|b1" else random_levels(7, 3, 5), dtype, order=order)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "t.npz", other=np.arange(5), x=x)
    np.savez_compressed(tmp_path / "packed.npz", x=x)
    for name, is_mapped in (("x.npy", True), ("t.npz", True), ("packed.npz", False)):
        found = npy.load(tmp_path / name, everything)["x"]
        np.testing.assert_array_equal(found, x)
        assert found.dtype == x.dtype
        assert found.flags.writeable != is_mapped


def test_texts_are_not_mapped(tmp_path, mapped):
    np.savez(tmp_path / "t.npz", classes=np.array(["a", "b"]))
    assert npy.load(tmp_path / "t.npz", everything)["classes"].flags.writeable


def test_a_bit_that_has_flipped_in_an_archive_is_noticed(tmp_path, mapped):
    x = random_levels(500, 8, 8)  # more than is read for the header
    np.savez(tmp_path / "t.npz", x=x)
    content = bytearray((tmp_path / "t.npz").read_bytes())
    content[content.index(x.tobytes()[:64]) + 20_000] ^= 1
    (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"t\.npz: x: cannot be read"):
        npy.load(tmp_path / "t.npz", everything)


KINDS = {
    "images": lambda count: random_levels(count, 16, 16, 3),
    "deep": lambda count: random_levels(count, 16, 16, dtype=np.uint16),
    "numbers": lambda count: np.random.default_rng(0).normal(size=(count, 300)).astype(np.float32),
    "features": lambda count: np.random.default_rng(0).normal(size=(count, 300)).astype(np.float16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_set_is_the_same_as_of_what_was_read(tmp_path, monkeypatch, kind):
    x = KINDS[kind](90)
    y = np.where(np.arange(90) % 5, np.arange(90) % 3, -1)
    np.savez(tmp_path / "t.npz", x=x, y=y, x_unlabelled=x[:7], x_val=x[5:9], y_val=np.arange(4) % 3)
    one = arrays(tmp_path / "t.npz")
    monkeypatch.setattr(npy, "MAPPED", 0)
    monkeypatch.setattr(npy, "_AT_ONCE", 4000)
    other = arrays(tmp_path / "t.npz")
    assert one.form.shape == other.form.shape
    np.testing.assert_allclose(one.form.details["mean"], other.form.details["mean"], rtol=1e-9, atol=1e-12)
    for name in ("x", "y", "x_test", "y_test"):
        torch.testing.assert_close(getattr(other, name), getattr(one, name))


@pytest.mark.parametrize(("kind", "times"), [("images", 1.2), ("deep", 3.2), ("numbers", 2.3), ("features", 1.4)])
def test_memory_is_that_of_the_result(tmp_path, mapped, monkeypatch, kind, times):
    """In sizes of the file: the pool and the test, of numbers and finer levels once as they are and once in float32."""
    monkeypatch.setattr(npy, "_AT_ONCE", 2**15)
    x = KINDS[kind](4000)
    np.savez(tmp_path / "t.npz", x=x, y=np.arange(4000) % 3)
    arrays(tmp_path / "t.npz")
    tracemalloc.start()
    try:
        arrays(tmp_path / "t.npz")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < times * x.nbytes + 2**20
