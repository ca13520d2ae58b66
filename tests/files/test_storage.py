"""Files on a disk that is full, pipes in place of files, modes, encodings; the truth is what the system says."""

import json
import os
import resource
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from metapl.core.types import Variables
from metapl.files import storage
from metapl.registry.errors import InputError
from metapl.training import checkpoint, loggers
from metapl.training.config import TrainConfig

NETWORKS = {"ema": Variables({"w": torch.arange(2000.0)}, {})}


@contextmanager
def small_disk(size):
    """No file can grow beyond so many bytes, which the system says as it says that a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The folder for temporary files."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_the_umask_gives(tmp_path, mask):
    before = os.umask(mask)
    try:
        checkpoint.save_networks(tmp_path / "x.safetensors", NETWORKS)
        storage.write_json(tmp_path / "x.json", {})
        (tmp_path / "plain").write_bytes(b"")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o666 & ~mask}


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def noted(*args, name=name, real=real):
            path = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else args[1]
            done.append((name, Path(path).name))
            return real(*args)

        monkeypatch.setattr(os, name, noted)
    storage.write_text(tmp_path / "x.txt", "whole")
    temporary = f".x.txt.{os.getpid()}.tmp.txt"
    assert done == [("fsync", temporary), ("replace", "x.txt"), ("fsync", tmp_path.name)]


def test_a_full_disk_leaves_no_half_file(tmp_path):
    storage.write_text(tmp_path / "x.txt", "old")
    with small_disk(1000), pytest.raises(InputError, match=r"x\.txt cannot be written \(File too large\)"):
        storage.write_text(tmp_path / "x.txt", "new" * 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
    assert (tmp_path / "x.txt").read_text() == "old"


def test_weights_that_cannot_be_written_are_saved_elsewhere(tmp_path, elsewhere):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError) as caught:
        checkpoint.save_networks(tmp_path / "run" / "final.safetensors", NETWORKS)
    (saved,) = elsewhere.rglob("final.safetensors")
    assert "\n" not in str(caught.value)
    assert f"the trained networks are in {saved}" in str(caught.value)
    assert torch.equal(checkpoint.load_networks(saved)["ema"].params["w"], NETWORKS["ema"].params["w"])


def test_weights_that_can_be_written_nowhere(tmp_path, elsewhere, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with small_disk(1000), pytest.raises(InputError, match=r"File too large\), nor anywhere else: .* are lost"):
        checkpoint.save_networks(tmp_path / "final.safetensors", NETWORKS)
    assert not [path for path in tmp_path.rglob("*") if path != elsewhere]


def test_a_log_on_a_full_disk_goes_on_when_there_is_room(tmp_path):
    log = loggers.jsonl(TrainConfig(), tmp_path)
    lines = [{"phase": "mpl", "step": step, "metrics": {"loss": float("inf")}} for step in range(20)]
    with small_disk(200):
        for line in lines[:-1]:
            log.write(line)
    log.write(lines[-1])
    log.close()
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert found == [{**line, "metrics": {"loss": None}} for line in lines]


def test_a_log_on_a_disk_that_stays_full_ends_with_a_whole_line(tmp_path):
    log = loggers.jsonl(TrainConfig(), tmp_path)
    with small_disk(200):
        for step in range(20):
            log.write({"phase": "mpl", "step": step})
        with pytest.raises(InputError, match=r"metrics\.jsonl lacks its last lines \(File too large\)"):
            log.close()
    found = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert found == list(range(len(found)))
    assert found


def test_text_is_utf8_in_any_locale(tmp_path):
    storage.write_text(tmp_path / "x.txt", "− é 日本")
    assert (tmp_path / "x.txt").read_bytes() == "− é 日本".encode()
    assert storage.read_text(tmp_path / "x.txt") == "− é 日本"


def test_the_name_of_a_file_that_is_not_utf8_is_told(tmp_path):
    with pytest.raises(InputError, match=r"x\.txt cannot be written \('caf\\udce9' is not UTF-8\): rename"):
        storage.write_text(tmp_path / "x.txt", "caf\udce9")
    assert not list(tmp_path.iterdir())


def test_only_files_are_read_and_only_so_much_of_them(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "large").write_bytes(b"12345678")
    wanted = {"pipe": "not a regular file", "folder": "Is a directory", "loop": "Too many levels", "large": "8 bytes"}
    for name, reason in {**wanted, "/dev/zero": "not a regular file"}.items():
        with pytest.raises(OSError, match=reason):
            storage.read_bytes(tmp_path / name, 7)
    assert storage.read_bytes(tmp_path / "large", 8) == b"12345678"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "{", "\xff", "9" * 5000])
def test_what_is_no_json(tmp_path, text):
    (tmp_path / "x.json").write_text(text, encoding="latin1")
    with pytest.raises(ValueError, match=r"."):
        storage.read_json(tmp_path / "x.json")


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = ", "\xff", "a = " + "9" * 5000])
def test_what_is_no_toml(tmp_path, text):
    (tmp_path / "x.toml").write_text(text, encoding="latin1")
    with pytest.raises(ValueError, match=r"."):
        storage.read_toml(tmp_path / "x.toml")


def test_a_message_of_one_line_is_no_longer_than_anybody_reads():
    told = str(InputError(f"t.csv, line 3: {'9' * 10_000} is no number: correct it"))
    assert len(told) < 1100
    assert told.startswith("t.csv, line 3: 999")
    assert told.endswith("is no number: correct it")


def test_the_mark_of_utf8_and_ends_of_lines_of_other_systems(tmp_path):
    (tmp_path / "x.toml").write_bytes(b'\xef\xbb\xbfa = "b"\r\nc = 1\r\n')
    assert storage.read_toml(tmp_path / "x.toml") == {"a": "b", "c": 1}
