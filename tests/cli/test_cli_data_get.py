"""`metapl data get`: what it downloads, checks and takes apart."""

import functools
import os
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from data_command import assert_refused, digest_of, invoke
from published import write_cifar10, write_cifar100, write_mnist

from metapl.data.sources import STORED, find
from metapl.data.sources.base import Archive, Known

pytestmark = pytest.mark.usefixtures("nowhere")


def archive_of(url, path):
    return Archive(f"{url}/{path.name}", digest_of(path), path.stat().st_size)


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
