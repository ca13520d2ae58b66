"""A folder that one process writes to."""

import os
import signal
import subprocess
import sys

import pytest

from metapl.files import lock
from metapl.registry.errors import InputError

HOLD = "import sys, time; from pathlib import Path; from metapl.files.lock import Held; held = Held(Path(sys.argv[1]))"


def test_a_folder_is_held_once(tmp_path):
    with lock.Held(tmp_path):
        assert lock.in_use(tmp_path)
        with pytest.raises(InputError, match="is in use by another process: wait for it, or stop it"):
            lock.Held(tmp_path)
    assert not lock.in_use(tmp_path)
    lock.Held(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_another_process_dies_with_it(tmp_path):
    held = subprocess.Popen(
        [sys.executable, "-c", f"{HOLD}; print('held', flush=True); time.sleep(600)", tmp_path], stdout=subprocess.PIPE
    )
    with held:
        assert held.stdout.readline() == b"held\n"
        assert lock.in_use(tmp_path)
        with pytest.raises(InputError, match="in use"):
            lock.Held(tmp_path)
        held.send_signal(signal.SIGKILL)
    assert not lock.in_use(tmp_path)
    lock.Held(tmp_path).release()


def test_it_knows_where_its_folder_is_now(tmp_path):
    (tmp_path / "one").mkdir()
    with lock.Held(tmp_path / "one") as held:
        assert held.path == tmp_path / "one"
        os.rename(tmp_path / "one", tmp_path / "other")
        assert held.path == tmp_path / "other"
        (tmp_path / "one").mkdir()  # another folder of the old name
        assert held.path == tmp_path / "other"
        os.rmdir(tmp_path / "other")
        assert held.path == tmp_path / "one"


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("none", "file"):
        with pytest.raises(InputError, match=f"{name} cannot be opened"):
            lock.Held(tmp_path / name)
    assert not lock.in_use(tmp_path / "none")
