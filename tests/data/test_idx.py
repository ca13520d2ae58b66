"""Data sets in the layout of MNIST."""

import gzip
import struct

import numpy as np
import pytest
from datasets_alike import assert_moments, assert_refused, assert_same, assert_types
from published import write_idx, write_mnist

from metapl.data.sources.idx import CLOTHES, idx

# ---------------------------------------------------------------- idx files


def grey(count, labels, seed=0, size=(5, 4)):
    x = np.random.default_rng(seed).integers(0, 256, (count, *size), dtype=np.uint8)
    return x, np.array([labels[one % len(labels)] for one in range(count)], np.uint8)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_has_every_image_in_its_place(tmp_path, end):
    train, test = grey(12, range(6)), grey(7, range(6), seed=1)
    write_mnist(tmp_path, train, test, end)
    data = idx(tmp_path)
    assert_types(data, (1, 5, 4), 6)
    assert_moments(data)
    assert data.form.classes == tuple("012345")
    for (x, y), (images, labels) in zip(((data.x, data.y), (data.x_test, data.y_test)), (train, test), strict=True):
        assert x[:, 0].tolist() == images.tolist()
        assert y.tolist() == labels.tolist()


def test_idx_files_with_a_dot_in_their_names(tmp_path):
    write_mnist(tmp_path / "a", grey(6, range(3)), grey(3, range(3)), "")
    (tmp_path / "b").mkdir()
    for path in (tmp_path / "a").iterdir():
        (tmp_path / "b" / path.name.replace("-idx", ".idx")).write_bytes(path.read_bytes())
    assert_same(idx(tmp_path / "a"), idx(tmp_path / "b"))


def test_what_an_interrupted_download_left_is_no_idx_file(tmp_path):
    write_mnist(tmp_path, grey(6, range(3)), grey(3, range(3)))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.rename(tmp_path / f"{path.name}.part")
    assert_refused(lambda: idx(tmp_path), tmp_path, "no train-images file")


def test_labels_need_not_start_at_0(tmp_path):
    write_mnist(tmp_path, grey(6, [1, 4, 9]), grey(4, [9, 1]))
    data = idx(tmp_path)
    assert data.form.classes == ("1", "4", "9")
    assert data.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.y_test.tolist() == [2, 0, 2, 0]


@pytest.mark.parametrize("name", ["fashion-mnist", "FashionMNIST/raw", "Fashion_MNIST"])
def test_the_classes_of_clothes_have_names(tmp_path, name):
    write_mnist(tmp_path / name, grey(6, [0, 9]), grey(4, [1, 9]))
    data = idx(tmp_path / name)
    assert data.form.classes == CLOTHES
    assert data.y.tolist() == [0, 9] * 3
    assert data.y_test.tolist() == [1, 9] * 2


@pytest.mark.parametrize("name", ["mnist", "raw", "fashion"])
def test_the_classes_of_others_have_numbers(tmp_path, name):
    write_mnist(tmp_path / name, grey(4, [0, 9]), grey(4, [0, 9]))
    assert idx(tmp_path / name).form.classes == ("0", "9")


def damaged(raw):
    shown = len(raw) - 16
    return {
        "cut in the header": (raw[:7], "no idx file"),
        "empty": (b"", "no idx file"),
        "cut": (raw[:-1], f"{shown - 1} bytes for 6×5×4, which is {shown}"),
        "too long": (raw + b"x", f"{shown + 1} bytes"),
        "of other numbers": (raw[:2] + b"\x0d" + raw[3:], "no idx file of unsigned bytes"),
        "of labels": (raw[:3] + b"\x01" + raw[4:], "no idx file of unsigned bytes in 3 dimensions"),
        "a page": (b"<html>" * 40, "no idx file"),
        "huge": (raw[:4] + struct.pack(">3I", *[2**32 - 1] * 3) + raw[16:], "bytes for 4294967295×"),
        "no image": (raw[:4] + struct.pack(">3I", 0, 5, 4), "6 labels for 0 images"),
        "one image less": (raw[:4] + struct.pack(">3I", 5, 5, 4) + raw[16:-20], "6 labels for 5 images"),
        "incomplete gzip": (gzip.compress(raw)[:-5], "incomplete gzip"),
        "spoilt gzip": (gzip.compress(raw)[:-8] + bytes(8), "incomplete gzip"),
        "nothing but the start of gzip": (b"\x1f\x8b", "incomplete gzip"),
    }


@pytest.mark.parametrize("name", damaged(bytes(16)))
def test_damaged_idx_files(tmp_path, name):
    write_mnist(tmp_path, grey(6, range(3)), grey(3, range(3)), "")
    path = tmp_path / "train-images-idx3-ubyte"
    raw, word = damaged(path.read_bytes())[name]
    path.write_bytes(raw)
    assert_refused(lambda: idx(tmp_path), tmp_path / "train-", word)


def test_idx_parts_that_do_not_fit(tmp_path):
    write_mnist(tmp_path, grey(6, range(3)), grey(3, range(3), size=(4, 4)))
    assert_refused(lambda: idx(tmp_path), tmp_path, "5×4 and 4×4")
    write_mnist(tmp_path, grey(6, range(3)), grey(4, range(4)))
    assert_refused(lambda: idx(tmp_path), tmp_path / "t10k-labels", "label 3 at image 3, where labels are 0 to 2")
    write_mnist(tmp_path / "fashion-mnist", grey(20, range(11)), grey(3, range(3)))
    assert_refused(lambda: idx(tmp_path / "fashion-mnist"), "label 10 at image 10, where labels are 0 to 9")


def test_idx_without_any_images(tmp_path):
    nothing = np.zeros((0, 5, 4), np.uint8), np.zeros(0, np.uint8)
    write_mnist(tmp_path, nothing, nothing)
    assert_refused(lambda: idx(tmp_path), "train-labels", "no images")


@pytest.mark.parametrize("name", ["train-images", "train-labels", "t10k-images", "t10k-labels"])
def test_an_idx_file_that_is_missing(tmp_path, name):
    write_mnist(tmp_path, grey(6, range(3)), grey(3, range(3)))
    next(tmp_path.glob(f"{name}*")).unlink()
    assert_refused(lambda: idx(tmp_path), tmp_path, f"no {name} file")


def test_colour_images_are_no_idx_files(tmp_path):
    write_mnist(tmp_path, grey(6, range(3)), grey(3, range(3)), "")
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((6, 3, 5, 4), np.uint8))
    assert_refused(lambda: idx(tmp_path), "train-images-idx3-ubyte", "3 dimensions")
