"""`--data` as a name or a path: where it is looked for, what is checked, and what is said when there is nothing."""

import hashlib
import os
import zlib

import numpy as np
import pytest
import torch
from asserts import assert_says
from published import write_cifar10, write_cifar100, write_mnist

from metapl.data.sources import EMBEDDED, SOURCES, STORED, find
from metapl.data.sources.base import Known
from metapl.data.sources.idx import CLOTHES


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """Nothing of this machine is found."""
    monkeypatch.delenv(find.VARIABLE, raising=False)
    monkeypatch.setattr(find, "SYSTEM", tmp_path / "system")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def own(monkeypatch):
    """The small files of these tests count as the published ones."""

    def accept(name, folder):
        files = []
        for path in sorted(folder.iterdir()):
            plain = zlib.decompress(path.read_bytes(), 31) if path.suffix == ".gz" else path.read_bytes()
            files.append(Known(path.name.removesuffix(".gz"), f"sha256:{hashlib.sha256(plain).hexdigest()}"))
        monkeypatch.setitem(STORED, name, STORED[name]._replace(files=files))

    return accept


def cifar(folder, own=None):
    write_cifar10(folder)
    if own:
        own("cifar10", folder)
    return folder


def mnist(folder):
    part = np.zeros((4, 3, 3), np.uint8), np.array([0, 1, 0, 1], np.uint8)
    write_mnist(folder, part, part)
    return folder


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", EMBEDDED)
def test_what_needs_no_files_ignores_the_folder(name, tmp_path):
    for data_dir in ("", str(tmp_path), "/nope"):
        assert torch.equal(find.load(name, data_dir).y, SOURCES[name]().y)


def test_options_reach_the_source():
    assert len(find.load("moons:points=40").x) == 40


@pytest.mark.parametrize("below", [".", "cifar-10-batches-py", "cifar-10-batches-bin", "cifar10"])
def test_a_name_in_the_folder_or_below_it(tmp_path, own, below):
    place = cifar(tmp_path / "data" / below, own)
    assert find.find("cifar10", str(tmp_path / "data")).samefile(place)
    assert len(find.load("cifar10", str(tmp_path / "data")).x) == 20
    assert find.locate("cifar10", str(tmp_path / "data")) == ("cifar10", find.find("cifar10", str(tmp_path / "data")))


def test_the_order_of_places(tmp_path, monkeypatch):
    given, first, second, system = (cifar(tmp_path / name / "cifar10") for name in ("given", "a", "b", "system"))
    assert find.find("cifar10") == system
    monkeypatch.setenv(find.VARIABLE, os.pathsep.join(map(str, ("", tmp_path / "nope", first.parent, second.parent))))
    assert find.find("cifar10") == first
    assert find.find("cifar10", str(given.parent)) == given
    assert find.find("cifar10", str(tmp_path)) == first
    monkeypatch.setenv(find.VARIABLE, str(second))
    assert find.find("cifar10") == second
    monkeypatch.setenv(find.VARIABLE, f"{first.parent}{os.pathsep}{second.parent}")
    (first / "data_batch_1").unlink()
    (first / "test_batch").unlink()
    assert find.find("cifar10") == second


def test_a_home_folder(tmp_path, monkeypatch, own):
    monkeypatch.setenv("HOME", str(tmp_path))
    place = cifar(tmp_path / "data" / "cifar10", own)
    assert find.find("cifar10", "~/data") == place
    assert len(find.load("~/data/cifar10").x) == 20
    monkeypatch.setenv(find.VARIABLE, "~/data")
    assert find.find("cifar10") == place


def test_what_may_be_anything_is_looked_for_only_where_one_points(tmp_path, monkeypatch):
    place = mnist(tmp_path / "stuff")
    monkeypatch.setenv(find.VARIABLE, str(place))
    assert find.find("idx") is None
    assert find.find("idx", str(place)) == place
    assert_says(lambda: find.load("idx"), "--data idx", "--data-dir")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_folder_of_a_name_may_be_called_otherwise(tmp_path, name):
    """Where one points to it; not where it would have to be guessed."""
    place = mnist(tmp_path / "stuff")
    assert find.find(name, str(place)) == place
    assert find.find(name, str(tmp_path)) is None


def test_nothing_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv(find.VARIABLE, f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}")
    (tmp_path / "given").mkdir()
    where = [tmp_path / name for name in ("given", "a", "b", "system")]
    assert_says(lambda: find.load("cifar10", str(tmp_path / "given")), "cifar10", *where, "metapl data get cifar10")
    assert find.find("cifar10", str(tmp_path / "given")) is None


def test_a_folder_that_does_not_exist():
    for load in (find.load, find.find, find.locate):
        assert_says(lambda load=load: load("cifar10", "nope"), "--data-dir nope does not exist")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("cifr10", "did you mean 'cifar10'"),
        ("digitz:shift=1", "did you mean 'digits'"),
        ("gone.csv", "--data gone.csv: there is no such file or folder"),
        ("", "unknown data ''"),
        (":", "unknown data ''"),
        ("cifar10:coarse=true", "takes no options"),
        ("cifar100:corse=true", "did you mean 'coarse'"),
        ("cifar100:coarse=maybe", "expected true or false"),
        ("svhn:extra", "has no value"),
        ("moons:points=1", "must be at least 2"),
    ],
)
def test_wrong_names_and_options(text, word):
    """Told before a missing file is."""
    assert_says(lambda: find.load(text), word)


# ---------------------------------------------------------------- paths


def test_a_path_is_read_by_the_first_source_that_recognises_it(tmp_path):
    places = {
        "cifar10": cifar(tmp_path / "a"),
        "cifar100": tmp_path / "b",
        "fashion-mnist": mnist(tmp_path / "FashionMNIST" / "raw"),
        "mnist": mnist(tmp_path / "MNIST" / "raw"),
        "idx": mnist(tmp_path / "kmnist"),
    }
    write_cifar100(places["cifar100"])
    for name, place in places.items():
        assert find.recognise(place) == name
        assert find.locate(str(place)) == (name, place)
        assert torch.equal(find.load(str(place)).x, STORED[name].load(place).x)
    assert find.recognise(tmp_path / "nope") is None


def test_a_path_may_be_relative_and_have_options_and_colons(tmp_path):
    write_cifar100(tmp_path / "a:b=c" / "d")
    assert find.load("a:b=c/d").classes == 100
    assert find.load("a:b=c/d:coarse=true").classes == 20
    assert find.load(f"{tmp_path}/a:b=c/d:").classes == 100
    assert_says(lambda: find.load("a:b=c/d:corse=true"), "did you mean 'coarse'")


def test_a_name_comes_before_a_path(tmp_path):
    mnist(tmp_path / "digits")
    assert len(find.load("digits").x) == 1297
    assert find.load("./digits").form.shape == (1, 3, 3)


@pytest.mark.parametrize("text", ["./nope", "/nope/nope:x=1", "~/nope", "a/nope", "x" * 5000 + "/"])
def test_a_path_to_nothing(text):
    assert_says(lambda: find.load(text), "there is no such file or folder")


def test_a_path_to_something_else(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.bin").write_bytes(b"x")
    for name in ("empty", "file.bin"):
        assert_says(lambda name=name: find.load(name), f"--data {name}", "cifar10")


# ---------------------------------------------------------------- checksums


def test_files_of_a_name_must_be_the_published_ones(tmp_path, own):
    place = cifar(tmp_path / "cifar10", own)
    path = place / "data_batch_3"
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)
    assert_says(lambda: find.load("cifar10", str(tmp_path)), path, "differs from the published file", "again")
    assert len(find.load(str(place)).x) == 20  # anybody's own files


def test_files_of_a_path_may_be_others(tmp_path):
    assert len(find.load(str(cifar(tmp_path / "mine"))).x) == 20


def test_large_files_are_not_checked(tmp_path, monkeypatch):
    cifar(tmp_path / "cifar10")
    assert_says(lambda: find.load("cifar10", str(tmp_path)), "data_batch_1 differs")
    monkeypatch.setattr(find, "CHECKED", 1000)
    assert len(find.load("cifar10", str(tmp_path)).x) == 20


def test_compression_does_not_change_a_checksum(tmp_path, own):
    place = mnist(tmp_path / "mnist")
    own("mnist", place)
    assert len(find.load("mnist", str(tmp_path)).x) == 4
    for path in list(place.iterdir()):
        (place / path.stem).write_bytes(zlib.decompress(path.read_bytes(), 31))
        path.write_bytes(b"not looked at")
    assert len(find.load("mnist", str(tmp_path)).x) == 4
    (place / "t10k-labels-idx1-ubyte").unlink()
    assert_says(lambda: find.load("mnist", str(tmp_path)), "t10k-labels-idx1-ubyte.gz differs")


def test_fashion_mnist_is_known_by_its_labels(tmp_path, own, monkeypatch):
    place = mnist(tmp_path / "stuff")
    assert find.load(str(place)).form.classes == ("0", "1")
    own("fashion-mnist", place)
    known = sorted(STORED["fashion-mnist"].files, key=lambda known: known.name)
    monkeypatch.setattr("metapl.data.sources.idx.CLOTHES_FILES", (known[2], known[3]))
    assert find.load(str(place)).form.classes == CLOTHES


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/home/me/photos/:size=32", "photos:size=32"),
        ("photos/", "photos"),
        ("a/t.csv", "t.csv"),
        ("digits:shift=2", "digits:shift=2"),
        (".:size=8", ".:size=8"),
    ],
)
def test_what_data_is_called(text, name):
    assert find.called(text) == name
