"""CIFAR-10 and CIFAR-100, in the Python and in the binary version."""

import pickle

import numpy as np
import pytest
from datasets_alike import assert_moments, assert_refused, assert_same, assert_types
from published import old_pickle, pictures, write_cifar10, write_cifar100

from metapl.data.sources.cifar import cifar10, cifar100

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
