"""A folder for each class, against the arrays that went into it."""

import shutil

import numpy as np
import pytest
import torch
from pictures import members_of, png, random_levels, save, shard

from metapl.core import rng
from metapl.data.formats import images
from metapl.data.sources import STORED

load = STORED["folder"].load

CLASSES = ("10", "2", "Zebra", "a b", "cat", "é")
COUNTS = (10, 7, 2, 1, 5, 12)


def levels_of(label, number, *shape):
    return random_levels(*(shape or (6, 7)), seed=1000 * label + number)


def write(place, counts=COUNTS, shape=(6, 7), start=0):
    """So many PNG files of each class, written from the last to the first."""
    for label, count in reversed(list(enumerate(counts))):
        for number in reversed(range(start, start + count)):
            save(place / CLASSES[label] / f"{number:03d}.png", levels_of(label, number, *shape))
    return place


def all_of(x):
    return x[torch.arange(len(x))]


def same(one, other):
    """Whether two data sets are equal to the last bit."""
    tensors = all(torch.equal(all_of(one[part]), all_of(other[part])) for part in range(4))
    return tensors and one.form == other.form


def found(x, y, channels=0):
    return {(label, image.numpy()[channels].tobytes()) for image, label in zip(x, y.tolist(), strict=True)}


def expected(counts=COUNTS, start=0):
    return {
        (label, levels_of(label, number).tobytes())
        for label, count in enumerate(counts)
        for number in range(start, start + count)
    }


# ---------------------------------------------------------------- layouts


def test_a_folder_for_each_class(tmp_path):
    data = load(write(tmp_path))
    assert data.form.kind == "images"
    assert data.form.shape == (1, 6, 7)
    assert data.form.classes == CLASSES
    assert data.x.dtype == torch.uint8
    assert data.y.dtype == data.y_test.dtype == torch.int64
    pool, test = found(data.x, data.y), found(data.x_test, data.y_test)
    assert pool | test == expected()
    assert not pool & test
    assert data.y_test.bincount(minlength=6).tolist() == [2, 1, 1, 0, 1, 2]


def test_files_that_are_numbered_over_all_classes_keep_their_order(tmp_path):
    """The order of the numbers, as in the data set that they were made from, not class after class."""
    y = [2, 0, 1, 1, 0, 2, 2, 1, 0, 0, 1, 2]
    for number, label in enumerate(y):
        save(tmp_path / "train" / str(label) / f"{number:03d}.png", levels_of(label, number))
        save(tmp_path / "test" / str(label) / f"{number:03d}.png", levels_of(label, number + 50))
    data = load(tmp_path)
    assert data.y.tolist() == data.y_test.tolist() == y
    np.testing.assert_array_equal(data.x[:, 0], [levels_of(label, number) for number, label in enumerate(y)])


def test_the_statistics_are_those_of_the_pool(tmp_path):
    data = load(write(tmp_path))
    assert data.form.details["mean"] == pytest.approx([(data.x.numpy() / 255).mean()], rel=1e-13)
    assert data.form.details["std"] == pytest.approx([(data.x.numpy() / 255).std()], rel=1e-13)


def test_the_views_are_those_of_the_form(tmp_path):
    """What a network sees of the pool has mean 0 and deviation 1."""
    data = load(write(tmp_path))
    seen = data.augment.prepare(data.x)
    assert float(seen.double().mean()) == pytest.approx(0, abs=1e-5)
    assert float(seen.double().std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert data.augment.strong(data.augment.shared(data.x, rng.key(0)), rng.key(1)).shape == data.x.shape


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_a_folder_for_the_test(tmp_path, name):
    write(tmp_path / "train")
    write(tmp_path / name, (3, 1, 0, 2), start=50)
    data = load(tmp_path)
    assert data.form.classes == CLASSES
    assert found(data.x, data.y) == expected()
    assert found(data.x_test, data.y_test) == expected((3, 1, 0, 2), start=50)


def test_the_test_set_is_the_first_folder_that_has_classes(tmp_path):
    write(tmp_path / "train")
    save(tmp_path / "test" / "1.png", levels_of(0, 99))  # as ImageNet's, whose labels are secret
    write(tmp_path / "val", (1, 1), start=50)
    assert found(*load(tmp_path)[2:4]) == expected((1, 1), start=50)
    write(tmp_path / "test", (0, 1, 1), start=70)
    assert found(*load(tmp_path)[2:4]) == expected((0, 1, 1), start=70)


def test_train_alone_is_held_out_from(tmp_path):
    assert same(load(write(tmp_path / "train").parent), load(tmp_path / "train"))


def test_train_may_be_a_class(tmp_path):
    for name in ("car", "train", "test"):
        save(tmp_path / name / "1.png", levels_of(0, 0))
        save(tmp_path / name / "2.png", levels_of(0, 1))
    save(tmp_path / "train" / "steam" / "3.png", levels_of(0, 2))
    assert load(tmp_path).form.classes == ("car", "test", "train")


def test_images_of_a_class_may_lie_deeper(tmp_path):
    write(tmp_path)
    shutil.move(tmp_path / "cat" / "001.png", save(tmp_path / "cat" / "000.d" / "e" / "1.png", levels_of(0, 0)))
    assert found(*load(tmp_path)[:2]) | found(*load(tmp_path)[2:4]) == expected()


@pytest.mark.parametrize("name", ["unlabelled", "unlabeled"])
@pytest.mark.parametrize("place", ["", "train"])
def test_images_without_labels(tmp_path, name, place):
    write(tmp_path / "train", (3, 4))
    write(tmp_path / "test", (1, 1), start=50)
    more = tmp_path / place / name
    save(more / "b.png", levels_of(9, 0))
    save(more / "deep" / "a.png", levels_of(9, 1))
    shard(more / "deep" / "x.tar", [("k.png", png(levels_of(9, 2))), ("k.cls", b"7")])
    data = load(tmp_path)
    assert data.form.classes == ("10", "2")
    assert data.y.tolist() == [0, 1, 0, 1, 0, 1, 1] + [-1] * 3  # 0.png of both classes, 1.png of both, …
    np.testing.assert_array_equal(data.x[-3:, 0].numpy(), [levels_of(9, number) for number in range(3)])
    assert len(data.x_test) == 2
    assert data.form.details["mean"] == pytest.approx([(data.x.numpy() / 255).mean()], rel=1e-13)


def test_images_without_labels_beside_the_classes_and_elsewhere(tmp_path):
    place, elsewhere = write(tmp_path / "own", (5, 5)), tmp_path / "else where"
    without = load(place)
    save(place / "unlabelled" / "1.png", levels_of(9, 0))
    save(elsewhere / "1.png", levels_of(9, 1, 20, 20))
    data = load(place, unlabelled=str(elsewhere))
    assert torch.equal(data.x[:8], without.x)
    assert torch.equal(data.x_test, without.x_test)
    assert data.y.tolist() == [*without.y.tolist(), -1, -1]
    assert torch.equal(data.x[8:], images.gather([place / "unlabelled", elsewhere], (1, 6, 7)).x)


def test_arrays_and_shards_without_labels(tmp_path):
    place = write(tmp_path / "own", (5, 5))
    np.save(tmp_path / "x.npy", random_levels(3, 6, 7, seed=9000))
    shard(tmp_path / "x.tar", [("1.png", png(levels_of(9, 0)))])
    assert np.array_equal(
        load(place, unlabelled=str(tmp_path / "x.npy")).x[-3:, 0].numpy(), random_levels(3, 6, 7, seed=9000)
    )
    assert np.array_equal(load(place, unlabelled=str(tmp_path / "x.tar")).x[-1, 0].numpy(), levels_of(9, 0))


# ---------------------------------------------------------------- the same data in any other way


def test_the_order_of_the_file_system_does_not_matter(tmp_path):
    """The same files, made in the opposite order, and elsewhere."""
    one = write(tmp_path / "one")
    other = tmp_path / "other"
    for file in images.find(one):
        (other / file.relative_to(one)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, other / file.relative_to(one))
    assert same(load(one), load(other))
    assert same(load(one), load(one))


def test_more_than_fits_in_memory_is_the_same(tmp_path, monkeypatch):
    write(tmp_path)
    save(tmp_path / "unlabelled" / "1.png", levels_of(9, 0))
    kept = load(tmp_path)
    monkeypatch.setattr(images, "IN_MEMORY", 100)
    lazy = load(tmp_path)
    assert not isinstance(lazy.x, torch.Tensor)
    assert not isinstance(lazy.x_test, torch.Tensor)
    assert same(kept, lazy)


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3)])
def test_arrays_files_and_shards_of_the_same_images_are_the_same_data(tmp_path, shape):
    counts = (10, 7, 5)
    order = sorted((f"{number:03d}", label, number) for label, count in enumerate(counts) for number in range(count))
    x = np.stack([levels_of(label, number, *shape) for _, label, number in order])
    y = [label for _, label, _ in order]
    more = random_levels(4, *shape, seed=77)
    write(tmp_path / "folder", counts, shape)
    for number, one in enumerate(more):
        save(tmp_path / "folder" / "unlabelled" / f"{number}.png", one)
    np.savez(tmp_path / "own.npz", x=x, y=y, x_unlabelled=more)
    for start, end in ((0, 9), (9, 22)):
        shard(tmp_path / "shards" / f"{start:03d}.tar", members_of(x[start:end], y[start:end], start))
    shard(tmp_path / "more.tar", [(f"{number}.png", png(one)) for number, one in enumerate(more)])
    data = [
        load(tmp_path / "folder"),
        STORED["arrays"].load(tmp_path / "own.npz"),
        STORED["shards"].load(tmp_path / "shards", unlabelled=str(tmp_path / "more.tar")),
    ]
    for other in data[1:]:
        for part in range(4):
            assert torch.equal(data[0][part], other[part])
        for name in ("mean", "std"):
            np.testing.assert_allclose(other.form.details[name], data[0].form.details[name], rtol=0, atol=1e-12)
        assert other.form.shape == data[0].form.shape
        assert other.form.classes == ("0", "1", "2")


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (3, 40, 50)),
        ({"size": 8}, (3, 8, 8)),
        ({"channels": 1}, (1, 40, 50)),
        ({"size": 16, "channels": 1}, (1, 16, 16)),
    ],
)
def test_size_and_channels(tmp_path, options, shape):
    data = load(write(tmp_path, (2, 2), (40, 50, 3)), **options)
    assert data.form.shape == shape == tuple(data.x.shape[1:]) == tuple(data.x_test.shape[1:])
    assert len(data.form.details["mean"]) == len(data.form.details["std"]) == shape[0]


def test_the_share_of_the_test(tmp_path):
    data = load(write(tmp_path, (10, 20)), test=0.5)
    assert data.y_test.bincount().tolist() == data.y.bincount().tolist() == [5, 10]
