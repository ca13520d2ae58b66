"""`metapl data`: what it lists, checks, downloads and writes, and what it says of bad input."""

import functools
import hashlib
import os
import subprocess
import sys
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from published import write_cifar10, write_cifar100, write_mnist
from typer.testing import CliRunner

from metapl.cli import data
from metapl.data.sources import EMBEDDED, SOURCES, STORED, find
from metapl.data.sources.base import Archive, Known
from metapl.registry.errors import InputError

app = typer.Typer()
app.add_typer(data.app, name="data")


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """Nothing of this machine is found."""
    monkeypatch.delenv(find.VARIABLE, raising=False)
    monkeypatch.setattr(find, "SYSTEM", tmp_path / "system")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)


def invoke(*args):
    """What `metapl data ARGS` prints, without line breaks inside of table cells."""
    result = CliRunner().invoke(app, ["data", *map(str, args)])
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0
    return result.output


def assert_refused(*args, words):
    with pytest.raises(InputError) as raised:
        invoke(*args)
    assert "\n" not in str(raised.value)
    for word in words:
        assert str(word) in str(raised.value)


def digest_of(path):
    return f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"


def archive_of(url, path):
    return Archive(f"{url}/{path.name}", digest_of(path), path.stat().st_size)


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


# ---------------------------------------------------------------- get


@pytest.fixture
def served(tmp_path):
    """The address of a folder that a server shows."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def publish(monkeypatch, name, files, archives):
    one = STORED[name]._replace(files=files, archives=archives)
    monkeypatch.setitem(STORED, name, one)


@pytest.fixture
def cifar10(served, tmp_path, monkeypatch):
    folder, url = served
    source = tmp_path / "source" / "cifar-10-batches-py"
    write_cifar10(source)
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as archive:
        archive.add(source, source.name)
    files = [Known(path.name, digest_of(path)) for path in sorted(source.iterdir())]
    publish(monkeypatch, "cifar10", files, [archive_of(url, folder / "cifar.tar.gz")])
    return served


@pytest.mark.parametrize("to", ["", "there"])
def test_get_an_archive(cifar10, to):
    folder, _ = cifar10
    output = invoke("get", "cifar10", *(("--to", to) if to else ()))
    place = Path(to or "data")
    assert f"--data cifar10 --data-dir {place}" in output
    assert len(find.load("cifar10", str(place)).x) == 20
    assert sorted(path.name for path in place.iterdir()) == ["cifar-10-batches-py", "cifar.tar.gz"]
    (folder / "cifar.tar.gz").unlink()  # what is there is not fetched again, and repairs what is damaged
    (place / "cifar-10-batches-py" / "test_batch").write_bytes(b"")
    invoke("get", "cifar10", "--to", place)
    assert len(find.load("cifar10", str(place)).x) == 20


def test_get_goes_to_the_folder_of_the_environment(cifar10, monkeypatch, tmp_path):
    monkeypatch.setenv(find.VARIABLE, f"{tmp_path / 'env'}{os.pathsep}{tmp_path / 'other'}")
    invoke("get", "cifar10")
    assert len(find.load("cifar10").x) == 20
    assert find.find("cifar10") == tmp_path / "env" / "cifar-10-batches-py"


@pytest.mark.parametrize("whole", [False, True])
def test_get_from_elsewhere(cifar10, monkeypatch, whole):
    folder, url = cifar10
    (folder / "mirror").mkdir()
    (folder / "cifar.tar.gz").rename(folder / "mirror" / "cifar.tar.gz")
    assert_refused("get", "cifar10", words=[f"{url}/cifar.tar.gz", "404"])
    invoke("get", "cifar10", "--url", f"{url}/mirror{'/cifar.tar.gz' if whole else '/'}")
    assert len(find.load("cifar10", "data").x) == 20


def test_get_files_that_are_no_archive(served, monkeypatch):
    folder, url = served
    part = np.zeros((4, 3, 3), np.uint8), np.array([0, 1, 0, 1], np.uint8)
    write_mnist(folder, part, part)
    archives = [archive_of(url, path) for path in sorted(folder.iterdir())]
    publish(monkeypatch, "mnist", [], archives)
    invoke("get", "mnist")
    assert len(find.load("mnist", "data").x) == 4
    assert {path.name for path in Path("data/mnist").iterdir()} == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("everything", [False, True])
def test_get_leaves_out_what_is_optional(served, monkeypatch, everything):
    folder, url = served
    write_cifar100(folder)
    (folder / "more").write_bytes(b"more")
    archives = [archive_of(url, folder / name) for name in ("train", "test", "meta")]
    archives.append(archive_of(url, folder / "more")._replace(optional=True))
    publish(monkeypatch, "cifar100", [], archives)
    invoke("get", "cifar100", *(["--all"] if everything else []))
    assert (Path("data") / STORED["cifar100"].folders[0] / "more").exists() == everything


def test_an_archive_of_something_else_is_not_taken_apart(cifar10):
    folder, url = cifar10
    (folder / "cifar.tar.gz").write_bytes(b"<html>")
    assert_refused("get", "cifar10", words=[f"{url}/cifar.tar.gz", "not the published file"])
    assert not [path for path in Path("data").rglob("*") if path.is_file()]


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
