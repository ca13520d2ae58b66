"""Folders of images and stores of them, against Pillow and numpy."""

import re
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import hwc, random_levels, save
from PIL import Image, ImageOps

from metapl.data.examples import Subset, join
from metapl.data.form import Form
from metapl.data.formats import images, moments
from metapl.data.formats.decode import decode
from metapl.registry.errors import InputError

# ---------------------------------------------------------------- stores


@pytest.fixture
def folder(tmp_path):
    """Twenty images of several sizes and kinds."""
    for number in range(20):
        shape = (8 + number % 3, 8 + number % 4) + ((3,) if number % 2 else ())
        save(tmp_path / f"{number:02d}.png", random_levels(*shape, seed=number))
    return tmp_path


def test_a_lazy_store_equals_the_tensor(folder, monkeypatch):
    files = images.find(folder)
    kept = images.load(files, (3, 8, 8))
    assert isinstance(kept, torch.Tensor)
    assert torch.equal(kept, torch.stack([decode(file, (3, 8, 8)) for file in files]))
    monkeypatch.setattr(images, "IN_MEMORY", 20 * 3 * 8 * 8 - 1)
    lazy = images.load(files, (3, 8, 8))
    assert not isinstance(lazy, torch.Tensor)
    assert (len(lazy), lazy.shape, lazy.dtype) == (20, kept.shape, kept.dtype)
    for places in ([0], [3, 3, 19, 0], list(range(20)), [], [-1]):
        index = torch.tensor(places, dtype=torch.int64)
        assert torch.equal(lazy[index], kept[index])
    assert torch.equal(join(lazy, kept)[torch.tensor([25, 4])], kept[torch.tensor([5, 4])])


def test_the_limit_of_memory_is_a_gibibyte():
    assert images.IN_MEMORY == 1024**3


def test_a_store_may_be_read_by_many_threads(folder):
    store = images.Files(images.find(folder), (3, 8, 8))
    expected, found = store[torch.arange(20)], {}

    def read(number):
        found[number] = store[torch.arange(20).roll(number)]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[number], expected.roll(number, 0)) for number in range(8))


def test_a_lazy_store_names_the_file_that_is_no_image(folder):
    (folder / "07.png").write_bytes(b"")
    store = images.Files(images.find(folder), (1, 8, 8))
    assert store[torch.tensor([6, 8])].shape == (2, 1, 8, 8)
    with pytest.raises(InputError, match=r"07\.png: no image"):
        store[torch.arange(20)]


def test_the_warning_of_a_bomb_does_not_leak(tmp_path, monkeypatch):
    file = save(tmp_path / "a.png", random_levels(10, 10))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(file).close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = warnings.filters[:]
        x = images.Files([file] * 64, (1, 10, 10))[torch.arange(64)]
        assert warnings.filters == before
    assert not caught
    np.testing.assert_array_equal(x[63, 0].numpy(), random_levels(10, 10))


# ---------------------------------------------------------------- shapes


def shape_of(folder, *sizes, grey=True):
    for number, size in enumerate(sizes):
        save(folder / f"{number:04d}.png", np.zeros(size if grey else (*size, 3), np.uint8))
    return images.guess_shape(images.find(folder))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 28)] * 3, (28, 28)),
        ([(20, 96)] * 3, (20, 96)),
        ([(97, 97)] * 3, (96, 96)),
        ([(20, 97)] * 3, (32, 32)),
        ([(28, 28), (28, 29)], (32, 32)),
        ([(100, 300), (400, 130), (170, 170)], (128, 128)),
        ([(64, 70), (127, 200)], (64, 64)),  # a median of 95.5
        ([(500, 400)] * 2, (224, 224)),
        ([(5, 400), (6, 7)], (32, 32)),
    ],
)
@pytest.mark.parametrize("grey", [True, False])
def test_the_shape_is_guessed(tmp_path, sizes, expected, grey):
    assert shape_of(tmp_path, *sizes, grey=grey) == (1 if grey else 3, *expected)


def test_one_image_in_colours_is_enough_for_three_channels(tmp_path):
    save(tmp_path / "z.png", np.zeros((28, 28, 3), np.uint8))
    assert shape_of(tmp_path, *[(28, 28)] * 9) == (3, 28, 28)


@pytest.mark.parametrize(
    ("levels", "channels"),
    [
        (np.zeros((4, 4, 2), np.uint8), 1),
        (np.zeros((4, 4, 4), np.uint8), 3),
        (np.zeros((4, 4), np.uint16), 1),
        (np.zeros((4, 4), bool), 1),
    ],
)
def test_kinds_of_grey(tmp_path, levels, channels):
    save(tmp_path / "a.png", levels)
    assert images.guess_shape(images.find(tmp_path)) == (channels, 4, 4)


def test_a_sample_is_enough(tmp_path, monkeypatch):
    """Four of ten: 0, 2, 5 and 7, by 10·i/4 rounded down."""
    monkeypatch.setattr(images, "SAMPLE", 4)
    for number in range(10):
        content = random_levels(9, 9) if number in (0, 2, 5, 7) else None
        file = tmp_path / f"{number}.png"
        file.write_bytes(b"") if content is None else save(file, content)
    assert images.guess_shape(images.find(tmp_path)) == (1, 9, 9)


# ---------------------------------------------------------------- moments


@pytest.mark.parametrize("shape", [(700, 3, 5, 6), (1, 1, 4, 4), (300, 1, 3, 3)])
def test_moments_are_those_of_all_pixels(shape):
    x = random_levels(*shape)
    x[:, -1] //= 3
    mean, std = moments.moments(torch.from_numpy(x))
    np.testing.assert_allclose(mean, (x / 255).mean((0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, (x / 255).std((0, 2, 3)), rtol=1e-13)


def test_a_channel_of_one_level_has_deviation_1():
    x = np.stack([np.full((4, 3, 3), 100, np.uint8), random_levels(4, 3, 3)], 1)
    mean, std = moments.moments(torch.from_numpy(x))
    assert mean[0] == pytest.approx(100 / 255, rel=1e-15)
    assert std[0] == 1.0
    assert std[1] == pytest.approx((x[:, 1] / 255).std(), rel=1e-13)


def test_moments_of_many_images_are_those_of_some(monkeypatch):
    monkeypatch.setattr(moments, "MEASURED", 7)
    x = random_levels(20, 1, 3, 3)
    chosen = [20 * number // 7 for number in range(7)]
    stored = Subset(torch.from_numpy(x), torch.arange(20))
    assert moments.moments(stored)[0][0] == pytest.approx((x[chosen] / 255).mean(), rel=1e-13)
    assert moments.moments(stored[torch.arange(20)])[0][0] == pytest.approx((x / 255).mean(), rel=1e-13)


def test_moments_of_a_lazy_store(folder, monkeypatch):
    files = images.find(folder)
    expected = moments.moments(images.load(files, (3, 8, 8)))
    monkeypatch.setattr(moments, "_CHUNK", 3)
    assert moments.moments(images.Files(files, (3, 8, 8))) == expected


# ---------------------------------------------------------------- fresh images

FORM = Form("images", (3, 8, 8), ("a", "b"), {"mean": [0.5] * 3, "std": [0.5] * 3})


def test_places_of_all_kinds_are_read_in_their_order(folder, tmp_path):
    levels = random_levels(4, 8, 8, 3)
    np.save(tmp_path / "x.npy", levels)
    np.savez(tmp_path / "x.npz", images=levels.transpose(0, 3, 1, 2), more=levels)
    places = [folder / "03.png", tmp_path / "x.npy", folder, tmp_path / "x.npz", folder / "00.png"]
    inputs = images.read(FORM, places)
    files = [str(file) for file in images.find(folder)]
    arrays = [[f"{tmp_path / name}[{number}]" for number in range(4)] for name in ("x.npy", "x.npz")]
    assert list(inputs.names) == [files[3], *arrays[0], *files, *arrays[1], files[0]]
    x = inputs.x[torch.arange(len(inputs.x))]
    decoded = torch.stack([decode(Path(file), (3, 8, 8)) for file in files])
    stored = torch.from_numpy(levels).permute(0, 3, 1, 2)
    assert torch.equal(x, torch.cat([decoded[3:4], stored, decoded, stored, decoded[:1]]))


def test_arrays_of_another_shape_are_fitted_as_files_are(tmp_path):
    levels = random_levels(3, 12, 20)
    np.save(tmp_path / "x.npy", levels)
    found = images.read(FORM, [tmp_path / "x.npy"]).x
    for number, one in enumerate(levels):
        expected = ImageOps.fit(Image.fromarray(one), (8, 8), Image.Resampling.BICUBIC).convert("RGB")
        np.testing.assert_array_equal(hwc(found[number]), np.asarray(expected))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: None, "no such file or folder: correct the path"),
        (lambda place: place.mkdir(), r"no images and no shards below it: name a folder with \.png "),
        (lambda place: place.write_bytes(b"text"), r"no image that can be read \(unknown format\): remove it"),
    ],
)
def test_places_without_images_are_refused(tmp_path, make, message):
    make(tmp_path / "place")
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 'place'))}: {message}"):
        images.read(FORM, [tmp_path / "place"])


@pytest.mark.parametrize("levels", [np.zeros((2, 8, 8), np.float32), np.zeros((2, 8), np.uint8)])
def test_arrays_that_are_no_images_are_refused(tmp_path, levels):
    np.save(tmp_path / "x.npy", levels)
    with pytest.raises(InputError, match=r"x\.npy: \w+ of shape .* are no images: give uint8"):
        images.read(FORM, [tmp_path / "x.npy"])


def test_parts_of_which_some_images_count_weigh_as_much_as_all(monkeypatch):
    monkeypatch.setattr(moments, "MEASURED", 3)
    parts = [
        Subset(torch.full((count, 1, 2, 2), level, dtype=torch.uint8), torch.arange(count))
        for count, level in ((20, 10), (5, 110))
    ]
    assert moments.moments(join(*parts))[0][0] == pytest.approx((20 * 10 + 5 * 110) / 25 / 255, rel=1e-13)
