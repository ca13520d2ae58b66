"""Street view house numbers, as MATLAB has saved them."""

import numpy as np
import pytest
import torch
from datasets_alike import assert_moments, assert_refused, assert_types
from scipy.io import savemat

from metapl.data.sources.svhn import svhn

# ---------------------------------------------------------------- SVHN


def write_svhn(path, count, seed=0, **changes):
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
    y = np.array([(seed + one) % 10 + 1 for one in range(count)], dtype=np.uint8)[:, None]
    held = {"X": x, "y": y} | changes
    savemat(path, {name: value for name, value in held.items() if value is not None}, do_compression=True)
    return x, y


@pytest.fixture
def streets(tmp_path):
    written = {
        name: write_svhn(tmp_path / f"{name}_32x32.mat", 11, seed) for seed, name in enumerate(("train", "test"))
    }
    return tmp_path, written


def test_svhn_has_every_image_in_its_place(streets):
    place, written = streets
    data = svhn(place)
    assert_types(data, (3, 32, 32), 10)
    assert_moments(data)
    assert data.form.classes == tuple("0123456789")
    for (x, y), (images, labels) in zip(((data.x, data.y), (data.x_test, data.y_test)), written.values(), strict=True):
        for one in range(11):
            assert y[one] == labels[one, 0] % 10
            for channel, line, column in ((0, 0, 1), (1, 5, 31), (2, 30, 7)):
                assert x[one, channel, line, column] == images[line, column, channel, one]
    assert 0 in data.y
    assert 10 not in data.y


def test_images_of_digits_are_not_mirrored(streets):
    assert svhn(streets[0]).form.details["mirror"] is False


@pytest.mark.parametrize("extra", [True, False])
def test_svhn_with_its_extra_images(streets, extra):
    place, _ = streets
    before = svhn(place)
    images, _ = write_svhn(place / "extra_32x32.mat", 5, seed=7)
    data = svhn(place, extra=extra)
    assert len(data.x) == (16 if extra else 11)
    assert torch.equal(data.x[:11], before.x)
    assert torch.equal(data.x_test, before.x_test)
    if extra:
        assert data.y[11:].tolist() == [8, 9, 0, 1, 2]
        assert data.x[15, 2, 3, 4] == images[3, 4, 2, 4]
        assert_moments(data)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"y": np.zeros((11, 1), np.uint8)}, "label 0 at image 0, where labels are 1 to 10"),
        ({"y": np.full((11, 1), 11, np.uint8)}, "label 11"),
        ({"y": np.ones((10, 1), np.uint8)}, "10 labels for 11 images"),
        ({"y": np.ones((11, 1))}, "no list of whole numbers"),
        ({"y": None}, "no list of whole numbers"),
        ({"X": None}, "not as uint8 [32, 32, 3, images]"),
        ({"X": np.zeros((11, 32, 32, 3), np.uint8)}, "uint8 [11, 32, 32, 3], not as uint8 [32, 32, 3, images]"),
        ({"X": np.zeros((32, 32, 3, 11))}, "float64 [32, 32, 3, 11]"),
    ],
)
def test_matrices_of_something_else(streets, changes, word):
    write_svhn(streets[0] / "test_32x32.mat", 11, **changes)
    assert_refused(lambda: svhn(streets[0]), streets[0] / "test_32x32.mat", word, "metapl data get svhn")


def test_a_matlab_file_that_is_missing_or_incomplete(streets):
    path = streets[0] / "train_32x32.mat"
    raw = path.read_bytes()
    for length in (0, 1, 127, 200, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        assert_refused(lambda: svhn(streets[0]), path, "metapl data get svhn")
    for other in (b"<html>" * 100, b"\x89HDF\r\n\x1a\n" + bytes(600)):
        path.write_bytes(other)
        assert_refused(lambda: svhn(streets[0]), path, "metapl data get svhn")
    path.unlink()
    assert_refused(lambda: svhn(streets[0]), path, "missing", "metapl data get svhn")
