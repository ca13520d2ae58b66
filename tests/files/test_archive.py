"""Archives of strangers: what is written, and what is refused before anything is."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from asserts import assert_says

from metapl.files.archive import extract

CONTENT = np.random.default_rng(0).bytes(300_000)


def tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            raw = content if isinstance(content, bytes) else b""
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return path


def link(name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


FILES = {"set/a": b"one", "set/below/b": b"two", "set/.hidden": b""}


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar", "x.zip"])
def test_archives_are_taken_apart(tmp_path, name):
    path = tmp_path / name
    zipped(path, FILES) if name == "x.zip" else tar(path, FILES, "w" if name == "x.tar" else "w:gz")
    extract(path, tmp_path / "out")
    found = {
        file.relative_to(tmp_path / "out").as_posix(): file.read_bytes() for file in (tmp_path / "out").rglob("*.*")
    }
    assert found == {"set/.hidden": b""}
    assert (tmp_path / "out" / "set" / "a").read_bytes() == b"one"
    assert (tmp_path / "out" / "set" / "below" / "b").read_bytes() == b"two"
    extract(path, tmp_path / "out")  # once more


@pytest.mark.parametrize("name", ["../evil", "set/../../evil", "/tmp/evil", "C:/evil", "..\\evil", "set/.."])
@pytest.mark.parametrize("make", [tar, zipped])
def test_paths_that_lead_out_are_refused(tmp_path, name, make):
    path = make(tmp_path / "archive", {"a": b"one", name: b"two"})
    assert_says(lambda: extract(path, tmp_path / "out"), path, repr(name), "leads out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["archive"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    path = tar(tmp_path / "archive", {"a": b"one", "b": link("b", "..", kind), "b/c": b"two"})
    assert_says(lambda: extract(path, tmp_path / "out"), path, "'b'", "neither file nor folder")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["archive"]


def test_modes_are_not_taken_over(tmp_path):
    member = tarfile.TarInfo("a")
    member.size, member.mode = 3, 0o6777
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(member, io.BytesIO(b"one"))
    extract(tmp_path / "x.tar", tmp_path / "out")
    assert (tmp_path / "out" / "a").stat().st_mode & 0o7111 == 0
    assert (tmp_path / "out" / "a").read_bytes() == b"one"


@pytest.mark.parametrize("make", [tar, zipped])
def test_damaged_archives(tmp_path, make):
    path = make(tmp_path / "archive", {"a": CONTENT, "b": CONTENT})
    raw = path.read_bytes()
    for length in (0, 10, 1000, len(raw) // 2, len(raw) - 30):
        path.write_bytes(raw[:length])
        assert_says(lambda: extract(path, tmp_path / "out"), path, "no complete tar or zip file")
        assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_hold_an_archive(tmp_path):
    path = tar(tmp_path / "archive", FILES)
    assert_says(lambda: extract(path, path), path, "cannot be extracted")
    assert_says(lambda: extract(tmp_path / "x.tar", tmp_path), "x.tar", "No such file")


@pytest.mark.parametrize("make", [tar, zipped])
def test_more_than_is_allowed_is_refused(tmp_path, make):
    path = make(tmp_path / "archive", {"a": b"x" * 600, "b": b"x" * 401})
    assert_says(lambda: extract(path, tmp_path / "out", 1000), path, "holds more than 1,000 bytes")
    assert not (tmp_path / "out").exists()
    extract(path, tmp_path / "out", 1001)
    assert (tmp_path / "out" / "b").stat().st_size == 401


@pytest.mark.parametrize("make", [tar, zipped])
def test_only_what_is_wanted_is_written(tmp_path, make):
    path = make(tmp_path / "archive", FILES)
    extract(path, tmp_path / "out", wanted=lambda name: name.endswith("b"))
    assert [file.name for file in (tmp_path / "out").rglob("*") if file.is_file()] == ["b"]
