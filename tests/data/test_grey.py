"""Images in any dtype: their levels, their views, and files of 16 bits with fewer in them."""

import json

import numpy as np
import pytest
import torch
from pictures import random_levels, shard
from PIL import Image

from metapl.core import rng
from metapl.data import inputs
from metapl.data.formats import decode, grey
from metapl.data.formats.white import guess_white
from metapl.data.sources import STORED
from metapl.registry.errors import InputError
from metapl.training import run_files

Y = np.arange(40) % 2
LEVELS = random_levels(40, 8, 9, 3)
FLAT = random_levels(40, 8, 9)
FINE = np.random.default_rng(0).random((40, 8, 9, 3))


def load(path, x, **options):
    np.savez(path / "a.npz", x=x, y=Y)
    return STORED["arrays"].load(path / "a.npz", **options)


def spread(low, high, size=FLAT.shape):
    """Whole levels, both ends among them."""
    x = np.random.default_rng(1).integers(low, high + 1, size)
    x.flat[:80] = [low, high] * 40
    return x


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("levels", [LEVELS, FLAT])
@pytest.mark.parametrize(
    "write",
    [
        lambda x: (x / 255).astype(np.float32),
        lambda x: x.astype(np.float32) / np.float32(255),
        lambda x: x / 255,
        lambda x: (x / 255).astype(np.float16),
        lambda x: x.astype(np.float32),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(">u2"),
        lambda x: x.astype(np.int16),
    ],
)
def test_8_bits_in_any_dtype_are_those_levels(tmp_path, levels, write):
    """The same data in every respect, views included, as uint8 has."""
    plain, other = load(tmp_path, levels), load(tmp_path, write(levels))
    assert torch.equal(other.x, plain.x)
    assert torch.equal(other.x_test, plain.x_test)
    assert (other.form.kind, other.form.shape) == ("images", plain.form.shape)
    assert other.form.details["mean"] == plain.form.details["mean"]
    for view in ("shared", "weak", "strong"):
        one, two = (getattr(data.augment, view)(data.x, rng.key(3)) for data in (plain, other))
        assert torch.equal(one, two)
    assert not torch.equal(other.augment.strong(other.x, rng.key(3)), other.x)
    assert any(write(levels).dtype.name in note.text for note in other.notes)


@pytest.mark.parametrize(
    ("x", "black", "white"),
    [
        (FINE, 0, 1),
        (FINE.astype(np.float32), 0, 1),
        (2 * FINE - 1, -1, 1),
        (spread(0, 4095), 0, 4095),
        (spread(0, 3000).astype(np.uint16), 0, 4095),
        (spread(0, 60_000).astype(np.uint16), 0, 65535),
        (spread(0, 1000).astype(np.float32), 0, 1023),
        (254.5 * FINE, 0, 255),
    ],
)
def test_finer_levels_keep_their_digits(tmp_path, x, black, white):
    data = load(tmp_path, x)
    low, high = data.form.details["scale"]
    np.testing.assert_allclose([low, high], [black, white], atol=1e-3 if black else 0, rtol=1e-3)
    assert data.x.dtype == torch.float32
    every = torch.cat([data.x, data.x_test]).flatten().sort().values
    expected = np.sort((255 * (x.astype(float) - low) / (high - low)).ravel())
    np.testing.assert_allclose(every, expected, rtol=1e-6, atol=1e-4)
    pool = data.x.double().numpy() / 255
    np.testing.assert_allclose(data.form.details["mean"], pool.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(data.form.details["std"], pool.std((0, 2, 3)), rtol=1e-9)
    strong = data.augment.strong(data.augment.shared(data.x, rng.key(0)), rng.key(1))
    assert strong.dtype == torch.float32
    assert not torch.equal(strong, data.x)
    seen = data.augment.prepare(data.x).double()
    assert float(seen.mean()) == pytest.approx(0, abs=1e-5)


def test_masks_are_black_and_white(tmp_path):
    x = FLAT > 127
    assert sorted(load(tmp_path, x).x.unique().tolist()) == [0, 255]
    assert torch.equal(load(tmp_path, x.astype(int)).x, load(tmp_path, x).x)


@pytest.mark.parametrize(
    "x",
    [
        np.random.default_rng(0).normal(size=(40, 12, 9)),
        np.eye(4)[np.random.default_rng(0).integers(0, 4, (40, 100))],
        np.random.default_rng(0).random((40, 6, 6, 5)),
        np.random.default_rng(0).random((40, 6)),
        np.random.default_rng(0).random((40, 3, 4, 5, 6)),
        5.5 * np.random.default_rng(0).random((40, 20, 20)),
    ],
)
def test_other_numbers_are_no_images(tmp_path, x):
    assert load(tmp_path, x).form.kind == "arrays"
    with pytest.raises(InputError, match="are no images: give"):
        load(tmp_path, x, read_as="images")


def test_the_user_can_say_that_they_are_none(tmp_path):
    assert load(tmp_path, FINE, read_as="numbers").form.kind == "arrays"
    with pytest.raises(InputError, match="read_as=picture must be images, numbers or auto"):
        load(tmp_path, FINE, read_as="picture")


@pytest.mark.parametrize("x", [FINE, (LEVELS / 255).astype(np.float32), spread(0, 4095)])
def test_fresh_images_are_read_in_the_same_way(tmp_path, x):
    data = load(tmp_path, x)
    form = run_files.form({**json.loads(json.dumps(data.form._asdict())), "shape": list(data.form.shape)}, "here")
    assert form == data.form
    np.save(tmp_path / "new.npy", x)
    found = inputs.read(form, [tmp_path / "new.npy"]).x
    kept = torch.cat([data.x, data.x_test]).double()
    assert float(found.double().mean()) == pytest.approx(float(kept.mean()), rel=1e-9)
    more = inputs.with_unlabelled(data, str(tmp_path / "new.npy"))
    assert len(more.x) == len(data.x) + 32
    assert more.x.dtype == data.x.dtype
    np.save(tmp_path / "far.npy", x * 4.0 + 1.0)
    with pytest.raises(InputError, match=r"far.npy: values from .* white .*: scale them as those of the training"):
        inputs.read(form, [tmp_path / "far.npy"])


def test_uint8_files_are_read_by_a_run_on_fractions(tmp_path):
    data = load(tmp_path, (FLAT / 255).astype(np.float32))
    Image.fromarray(FLAT[0]).save(tmp_path / "1.png")
    assert np.array_equal(inputs.read(data.form, [tmp_path / "1.png"]).x[torch.arange(1)][0, 0].numpy(), FLAT[0])


def test_constants_and_what_is_not_finite_are_no_images():
    assert grey.scale_of(np.ones((5, 8, 8))) is None
    assert grey.scale_of(np.full((5, 8, 8), np.nan)) is None


# ---------------------------------------------------------------- files


def folder(path, x):
    for index, image in enumerate(x):
        (path / "ab"[index % 2]).mkdir(exist_ok=True)
        Image.fromarray(image.astype(np.uint16)).save(path / "ab"[index % 2] / f"{index:02d}.png")
    return path


@pytest.mark.parametrize(
    ("high", "white"), [(255, 255), (1000, 1023), (4095, 4095), (3000, 4095), (16000, 16383), (40_000, 65535)]
)
def test_files_of_16_bits_keep_8_of_the_bits_they_use(tmp_path, high, white):
    x = spread(0, high)
    data = STORED["folder"].load(folder(tmp_path, x))
    found = torch.cat([data.x, data.x_test]).flatten().sort().values
    assert found.tolist() == sorted((x >> (white.bit_length() - 8)).ravel().tolist())
    assert data.form.details.get("white", 65535) == white
    assert any(f"white is {white}" in note.text for note in data.notes) == (white < 65535)
    fresh = inputs.read(data.form, [tmp_path / "a" / "00.png"]).x
    assert torch.equal(fresh[0, 0], torch.from_numpy((x[0] >> (white.bit_length() - 8)).astype(np.uint8)))


def test_white_can_be_given(tmp_path):
    x = spread(0, 3000)
    data = STORED["folder"].load(folder(tmp_path, x), white=65535)
    assert int(data.x.max()) == 3000 >> 8
    with pytest.raises(InputError, match="its level 3000 is beyond white, which is 1023: give white=65535"):
        STORED["folder"].load(tmp_path, white=1023)
    with pytest.raises(InputError, match="white=7 must be 255, 1023, 4095, 16383, 65535, or 0 for a guess"):
        STORED["folder"].load(tmp_path, white=7)


def test_shards_of_16_bits(tmp_path):
    members = []
    for index, image in enumerate(spread(0, 4095)):
        Image.fromarray(image.astype(np.uint16)).save(tmp_path / "one.png")
        members += [(f"{index}.png", (tmp_path / "one.png").read_bytes()), (f"{index}.cls", str(index % 2).encode())]
    shard(tmp_path / "s" / "1.tar", members)
    assert int(STORED["shards"].load(tmp_path / "s").x.max()) == 255


def test_files_of_8_bits_say_nothing_of_white(tmp_path):
    Image.fromarray(FLAT[0]).save(tmp_path / "1.png")
    assert guess_white([tmp_path / "1.png"]) == (decode.WHITE, decode.WHITE)
