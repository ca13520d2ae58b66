"""`metapl data`: what it lists, checks and writes, and what it says of bad input."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_command import assert_refused, digest_of, invoke
from published import write_cifar10, write_cifar100

from metapl.cli import data
from metapl.data.sources import EMBEDDED, SOURCES, STORED, find
from metapl.data.sources.base import Known

pytestmark = pytest.mark.usefixtures("nowhere")


def row_of(output, name):
    return next(line for line in output.splitlines() if line.split("│")[1:2] and line.split("│")[1].strip() == name)


# ---------------------------------------------------------------- list


def test_list_is_the_default():
    output = invoke()
    assert output == invoke("list")
    for name in SOURCES:
        row = row_of(output, name)
        assert ("needs no files" in row) == (name in EMBEDDED)
        assert ("not found" in row) == (name in STORED and bool(STORED[name].folders))
        assert ("http" in row) == (name in STORED and bool(STORED[name].archives))


def test_list_says_whether_files_are_the_published_ones(monkeypatch):
    write_cifar10(Path("d/cifar10"))
    write_cifar100(Path("d/cifar100"))
    files = [Known(path.name, digest_of(path)) for path in sorted(Path("d/cifar10").iterdir())]
    monkeypatch.setitem(STORED, "cifar10", STORED["cifar10"]._replace(files=files))
    output = invoke("list", "--data-dir", "d")
    assert "d/cifar10" in row_of(output, "cifar10")
    assert "6 as published" in row_of(output, "cifar10")
    assert "different: train, test, meta" in row_of(output, "cifar100")
    assert "not found" in row_of(output, "svhn")
    Path("d/cifar10/data_batch_2").write_bytes(b"")
    monkeypatch.setenv(find.VARIABLE, "d")
    assert "different: data_batch_2" in row_of(invoke("list"), "cifar10")
    monkeypatch.setattr(find, "CHECKED", 1000)
    assert "not checked" in row_of(invoke("list"), "cifar10")


# ---------------------------------------------------------------- check


def test_check_describes_the_data(monkeypatch):
    folder = Path("d/cifar10")
    write_cifar10(folder)
    files = [Known(path.name, digest_of(path)) for path in sorted(folder.iterdir())]
    monkeypatch.setitem(STORED, "cifar10", STORED["cifar10"]._replace(files=files))
    output = invoke("check", "cifar10", "--data-dir", "d")
    for known in files:
        assert f"{known.name} is as published ({known.digest})" in output
    assert "20 to train on, 4 to test, each 3×32×32 uint8" in output
    loaded = find.load("d/cifar10")
    for label, name in enumerate(loaded.form.classes):
        cells = [cell.strip() for cell in row_of(output, name).split("│")[1:-1]]
        counts = [int((y == label).sum()) for y in (loaded.y, loaded.y_test)]
        assert cells == [name, *map(str, counts)]


def test_check_of_a_path_is_of_anybodys_files():
    write_cifar10(Path("mine"))
    output = invoke("check", "mine")
    assert "mine, read as cifar10" in output
    assert "data_batch_1 is not as published" in output
    assert "20 to train on" in output
    assert_refused("check", "cifar10", "--data-dir", "mine", words=["data_batch_1 differs"])


def test_check_takes_its_time(monkeypatch):
    """Files that are too large to be checked each time they are read."""
    write_cifar10(Path("cifar10"))
    monkeypatch.setattr(find, "CHECKED", 1000)
    assert len(find.load("cifar10", ".").x) == 20
    assert_refused("check", "cifar10", "--data-dir", ".", words=["data_batch_1 differs"])


def test_check_counts_many_classes_in_short():
    write_cifar100(Path("cifar100"), binary=True)
    output = invoke("check", "./cifar100")
    assert "not checked" in output
    assert "1 to 2 training examples a class" in output
    assert "labels     of 100 classes" in output


def test_check_of_what_needs_no_files():
    output = invoke("check", "moons:points=50")
    assert "50 to train on, 50 to test, each 2 float32" in output
    assert "upper" in output


def test_labels_that_nobody_knows_are_counted(monkeypatch):
    loaded = SOURCES["moons"](points=10)
    loaded.y[:4] = -1
    monkeypatch.setattr(find, "load", lambda *_: loaded)
    output = invoke("check", "moons")
    assert "2 classes; 4 have none" in output
    assert sum(int(row_of(output, name).split("│")[2]) for name in ("upper", "lower")) == 6


# ---------------------------------------------------------------- prepare


@pytest.mark.parametrize("what", ["moons:points=30", "./set", "./set:coarse=true"])
def test_prepare_keeps_everything(what):
    write_cifar100(Path("set"))
    assert "examples to train on" in invoke("prepare", what, "--out", "new/one.npz")
    loaded = find.load(what)
    with np.load("new/one.npz", allow_pickle=False) as written:
        assert set(written) == {"x", "y", "x_test", "y_test", "classes"}
        for name in ("x", "y", "x_test", "y_test"):
            expected = getattr(loaded, name).numpy()
            assert written[name].dtype == expected.dtype
            np.testing.assert_array_equal(written[name], expected)
        assert tuple(written["classes"]) == loaded.form.classes
    assert [path.name for path in Path("new").iterdir()] == ["one.npz"]


def test_what_was_prepared_is_data():
    write_cifar100(Path("set"))
    invoke("prepare", "./set", "--out", "one.npz")
    before, after = find.load("./set"), find.load("one.npz")
    for name in ("x", "y", "x_test", "y_test"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    assert after.form.classes == before.form.classes


def test_prepare_reads_what_is_not_in_memory(monkeypatch):
    """In pieces, all of them and in their order."""
    loaded = SOURCES["moons"](points=30)

    class Stored:
        shape, dtype = loaded.x.shape, loaded.x.dtype

        def __len__(self):
            return len(loaded.x)

        def __getitem__(self, index):
            assert len(index) <= 7
            return loaded.x[index]

    monkeypatch.setattr(data, "BATCH", 7)
    monkeypatch.setattr(find, "load", lambda *_: loaded._replace(x=Stored()))
    invoke("prepare", "moons", "--out", "one.npz")
    with np.load("one.npz") as written:
        np.testing.assert_array_equal(written["x"], loaded.x.numpy())


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("list", "--data-dir", "nope"), ["--data-dir nope does not exist"]),
        (("check", "cifr10"), ["did you mean 'cifar10'"]),
        (("check", "cifar10"), ["cifar10", "metapl data get cifar10"]),
        (("check", "cifar10", "--data-dir", "nope"), ["--data-dir nope does not exist"]),
        (("check", "./nope"), ["./nope", "no such file or folder"]),
        (("get", "cifr10"), ["did you mean 'cifar10'"]),
        (("get", "digits"), ["unknown published data set 'digits'"]),
        (("get", "cifar10", "--url", "ftp://x"), ["no address"]),
        (("prepare", "moons", "--out", "x.csv"), ["--out x.csv", ".npz"]),
        (("prepare", "moons", "--out", "folder.npz"), ["--out folder.npz"]),
        (("prepare", "moons", "--out", "file/x.npz"), ["x.npz cannot be written"]),
        (("prepare", "svhn", "--out", "x.npz"), ["svhn", "metapl data get svhn"]),
    ],
)
def test_bad_input(args, words):
    Path("file").write_text("")
    Path("folder.npz").mkdir()
    assert_refused(*args, words=words)


def test_help_does_not_wait_for_torch():
    code = "import sys; from metapl.cli import data; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
