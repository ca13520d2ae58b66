"""Published image sets, from files in their official formats, against what was written into them."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
import pytest
import torch
from published import old_pickle, pictures, write_cifar10, write_cifar100, write_idx, write_mnist
from scipy.io import savemat

from metapl.data.formats import images as image_files
from metapl.data.formats.images import moments
from metapl.data.sources import STORED, find
from metapl.data.sources.cifar import cifar10, cifar100
from metapl.data.sources.idx import CLOTHES, CLOTHES_FILES, MNIST_FILES, idx
from metapl.data.sources.svhn import svhn
from metapl.registry.errors import InputError


def assert_same(one, other):
    for name in ("x", "y", "x_test", "y_test"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert one.form == other.form


def assert_types(data, shape, classes):
    assert data.x.dtype == data.x_test.dtype == torch.uint8
    assert data.y.dtype == data.y_test.dtype == torch.int64
    assert data.form.kind == "images"
    assert data.form.shape == tuple(data.x.shape[1:]) == tuple(data.x_test.shape[1:]) == shape
    assert data.classes == classes
    assert len(data.x) == len(data.y)
    assert len(data.x_test) == len(data.y_test)
    assert data.x.is_contiguous()
    assert data.x_test.is_contiguous()


def assert_moments(data):
    """By numpy, of the training pool."""
    x = data.x.numpy() / 255.0
    np.testing.assert_allclose(data.form.details["mean"], x.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.form.details["std"], x.std(axis=(0, 2, 3)), rtol=1e-12)


def assert_refused(load, *words):
    with pytest.raises(InputError) as raised:
        load()
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


def test_moments_are_those_of_numpy(monkeypatch):
    monkeypatch.setattr(image_files, "_CHUNK", 7)
    x = torch.from_numpy(pictures(50).reshape(-1, 3, 32, 32) // 3)
    mean, std = moments(x)
    np.testing.assert_allclose(mean, (x.numpy() / 255.0).mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, (x.numpy() / 255.0).std(axis=(0, 2, 3)), rtol=1e-13)


def test_a_channel_of_one_level_can_be_divided_by_its_deviation():
    x = torch.full((5, 2, 3, 3), 51, dtype=torch.uint8)
    x[0, 1] = 0
    mean, std = moments(x)
    assert mean[0] == pytest.approx(0.2)
    assert std[0] == 1.0
    assert std[1] == pytest.approx(0.2 * 0.4)


# ---------------------------------------------------------------- CIFAR-10


def test_cifar10_has_every_image_in_its_place(tmp_path):
    batches = write_cifar10(tmp_path)
    data = cifar10(tmp_path)
    assert_types(data, (3, 32, 32), 10)
    found = [*zip(data.x, data.y, strict=True), *zip(data.x_test, data.y_test, strict=True)]
    expected = [(row, label) for rows, labels in batches.values() for row, label in zip(rows, labels, strict=True)]
    assert len(found) == len(expected) == 24
    for (image, y), (row, label) in zip(found, expected, strict=True):
        assert y == label
        for channel in range(3):
            for line in (0, 1, 31):
                start = 1024 * channel + 32 * line  # red, green, blue; each line by line
                assert image[channel, line].tolist() == row[start : start + 32].tolist()


def test_cifar10_is_standardised_as_released(tmp_path):
    write_cifar10(tmp_path)
    details = cifar10(tmp_path).form.details
    assert details == {"mean": [0.4914, 0.482158, 0.4465309], "std": [0.247032, 0.243485, 0.26159]}


@pytest.mark.parametrize(("write", "load"), [(write_cifar10, cifar10), (write_cifar100, cifar100)])
def test_both_versions_of_cifar_are_the_same(tmp_path, write, load):
    write(tmp_path / "python")
    write(tmp_path / "binary", binary=True)
    assert_same(load(tmp_path / "python"), load(tmp_path / "binary"))


def test_cifar10_written_by_python_3(tmp_path):
    for name, (rows, labels) in write_cifar10(tmp_path / "old").items():
        (tmp_path / name).write_bytes(pickle.dumps({b"data": rows, b"labels": np.array(labels)}))
    assert_same(cifar10(tmp_path), cifar10(tmp_path / "old"))


class Called:
    def __reduce__(self):
        return print, ("run",)


def broken(folder, name, **changes):
    """A batch with something else in it."""
    rows, labels = pictures(4), [0, 1, 2, 3]
    (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": labels} | changes, 2))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"labels": [0, 1, 2]}, "3 labels for 4 images"),
        ({"labels": [0, 1, 2, 10]}, "label 10 at image 3, where labels are 0 to 9"),
        ({"labels": [0, -1, 2, 3]}, "label -1 at image 1"),
        ({"labels": [0.0, 1.0, 2.0, 3.0]}, "no list of whole numbers"),
        ({"labels": [[0], [1, 2], 2, 3]}, "no list of whole numbers"),
        ({"labels": "0123"}, "no list of whole numbers"),
        ({"labels": [0, 1, 2, 10**30]}, "no list of whole numbers"),
        ({"data": pictures(4)[:, :3000]}, "uint8 [4, 3000], not as uint8 [images, 3072]"),
        ({"data": pictures(4).astype(np.float32)}, "float32 [4, 3072]"),
        ({"data": pictures(4).tolist()}, "as list"),
        ({"data": pictures(0), "labels": np.zeros(0, np.int64)}, "no images"),
        ({"data": pictures(3), "labels": [0, 1, 2]}, "has 3 images and the first batch has 4"),
        ({"labels": Called()}, "print"),
    ],
)
def test_a_batch_that_is_not_one(tmp_path, capsys, changes, word):
    write_cifar10(tmp_path)
    broken(tmp_path, "data_batch_3", **changes)
    assert_refused(lambda: cifar10(tmp_path), tmp_path / "data_batch_3", word)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_4", "test_batch"])
@pytest.mark.parametrize("binary", [False, True])
def test_a_batch_that_is_missing_or_incomplete(tmp_path, name, binary):
    write_cifar10(tmp_path, binary)
    path = tmp_path / (f"{name}.bin" if binary else name)
    raw = path.read_bytes()
    for length in (0, 1, len(raw) // 2 + 1, len(raw) - 1):
        path.write_bytes(raw[:length])
        assert_refused(lambda: cifar10(tmp_path), path, "again")
    path.unlink()
    assert_refused(lambda: cifar10(tmp_path), path, "metapl data get cifar10")


def test_a_binary_batch_that_ends_with_an_image(tmp_path):
    write_cifar10(tmp_path, binary=True)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-3073])
    assert_refused(lambda: cifar10(tmp_path), path, "3 images", "incomplete")


def test_a_label_that_a_binary_batch_cannot_have(tmp_path):
    write_cifar10(tmp_path, binary=True)
    path = tmp_path / "test_batch.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    assert_refused(lambda: cifar10(tmp_path), path, "label 10 at image 0")


@pytest.mark.parametrize("held", [[1, 2], {"x": 1}, None, {1: 2}])
def test_a_pickle_of_something_else(tmp_path, held):
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps(held))
    assert_refused(lambda: cifar10(tmp_path), tmp_path / "test_batch", "without 'labels'")


# ---------------------------------------------------------------- CIFAR-100


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_cifar100_has_fine_and_coarse_labels(tmp_path, coarse, binary):
    parts = write_cifar100(tmp_path, binary)
    data = cifar100(tmp_path, coarse=coarse)
    assert_types(data, (3, 32, 32), 20 if coarse else 100)
    assert_moments(data)
    for (x, y), (rows, fine, groups) in zip(
        ((data.x, data.y), (data.x_test, data.y_test)), parts.values(), strict=True
    ):
        assert y.tolist() == (groups if coarse else fine)
        assert x.flatten(1).tolist() == rows.tolist()
    assert data.form.classes[:2] == (("coarse_0", "coarse_1") if coarse else ("fine_0", "fine_1"))
    assert data.form.classes[-1] == ("coarse_19" if coarse else "fine_99")


def test_names_of_classes_that_are_too_few(tmp_path):
    write_cifar100(tmp_path)
    (tmp_path / "meta").write_bytes(old_pickle({"fine_label_names": ["a"] * 100, "coarse_label_names": 3}))
    assert_refused(lambda: cifar100(tmp_path), "1 fine classes, not 100")
    assert_refused(lambda: cifar100(tmp_path, coarse=True), tmp_path / "meta", "no list of names")
    (tmp_path / "meta").unlink()
    assert_refused(lambda: cifar100(tmp_path), tmp_path / "meta", "missing", "metapl data get cifar100")


def test_names_of_classes_of_the_binary_version(tmp_path):
    write_cifar100(tmp_path, binary=True)
    (tmp_path / "fine_label_names.txt").unlink()
    assert_refused(lambda: cifar100(tmp_path), "fine_label_names.txt", "metapl data get cifar100")
    assert cifar100(tmp_path, coarse=True).classes == 20


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


# ---------------------------------------------------------------- all of them


def test_what_is_known_of_published_files_is_well_formed():
    for one in STORED.values():
        for known in (*one.files, *one.archives):
            kind, _, digits = known.digest.partition(":")
            assert len(digits) == {"md5": 32, "sha256": 64}[kind]
            assert int(digits, 16) >= 0
            assert digits == digits.lower()
        digests = [known.digest for known in one.files]
        assert len(set(digests)) == len(digests)
    assert {known.name for known in CLOTHES_FILES} == {known.name for known in MNIST_FILES}
    assert not {known.digest for known in CLOTHES_FILES} & {known.digest for known in MNIST_FILES}


# ---------------------------------------------------------------- the published files, where they are at hand


def published(name):
    place = find.find(name)
    if place is None:
        pytest.skip(f"{name} is not in METAPL_DATA or {find.SYSTEM}")
    return find.load(name)


def test_cifar10_as_published():
    """The binary version, made from the images as they were read, has the checksums of the published one."""
    data = published("cifar10")
    assert_types(data, (3, 32, 32), 10)
    assert torch.bincount(data.y).tolist() == [5000] * 10
    assert torch.bincount(data.y_test).tolist() == [1000] * 10
    mean, std = moments(data.x)
    np.testing.assert_allclose(mean, data.form.details["mean"], atol=5e-7)
    np.testing.assert_allclose(std, data.form.details["std"], atol=3e-6)
    binary = {known.name: known.digest for known in STORED["cifar10"].files if known.name.endswith(".bin")}
    parts = [*zip(data.x.split(10_000), data.y.split(10_000), strict=True), (data.x_test, data.y_test)]
    for digest, (x, y) in zip(binary.values(), parts, strict=True):
        records = torch.cat([y.to(torch.uint8)[:, None], x.flatten(1)], 1)
        assert digest == f"md5:{hashlib.md5(records.numpy().tobytes()).hexdigest()}"


def test_fashion_mnist_as_published():
    """Counts and statistics that are well known."""
    data = published("fashion-mnist")
    assert_types(data, (1, 28, 28), 10)
    assert torch.bincount(data.y).tolist() == [6000] * 10
    assert torch.bincount(data.y_test).tolist() == [1000] * 10
    assert data.form.classes[data.y[0]] == "ankle boot"
    assert data.form.details["mean"] == pytest.approx([0.2860], abs=5e-5)
    assert data.form.details["std"] == pytest.approx([0.3530], abs=5e-5)
