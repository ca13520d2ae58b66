"""Faults while a run goes on: full disks, folders that go away, files that vanish, memory that ends."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from command import invoke
from going_on import ALONE, EVERY, contents, resumed

from metapl.files import sealed, storage
from metapl.training import checkpoint, keeper, state_files, stored

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture
def at_once(monkeypatch):
    """Each state is written before anything else happens."""
    store = keeper.Keeper._store

    def storing(self):
        store(self)
        self._settle()

    monkeypatch.setattr(keeper.Keeper, "_store", storing)


@pytest.fixture
def small(tmp_path):
    """A file system of 400 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def cover():
    """`cover(place)`: a file system that cannot be written lies over a folder; `cover.off(place)` takes it away."""
    covered = []

    def on(place):
        mount = ["mount", "-t", "tmpfs", "-o", "ro,size=4k", "tmpfs", place]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("file systems cannot be mounted here")
        covered.append(place)

    def off(place):
        covered.remove(place)
        subprocess.run(["umount", "-l", place], check=True)

    on.off = off
    yield on
    for place in [*covered]:
        off(place)


def fill(place):
    """Leave no byte free."""
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            for size in (4096, 1):
                while file.write(b"x" * size):
                    pass
        except OSError:
            pass


def test_a_disk_that_is_full_for_a_while(whole, stop, small, at_once):
    """The state is not stored, which is said once; the one before stays; once there is room all goes on."""
    stop("mpl", 2, lambda: fill(small))
    outcome = invoke("train", *ALONE, *EVERY, "--out", small / "run")
    assert outcome.code == 2
    assert outcome.err.count("a state of the run is not stored, and the one before stays") == 1
    assert "No space left on device" in outcome.err
    assert outcome.err.endswith("of mpl is stored, `metapl train --resume {}` goes on\n".format(small / "run"))
    os.remove(small / "filler")
    assert resumed(small / "run") == whole(*ALONE)


def test_states_go_to_the_spare_folder(whole, stop, small, at_once, tmp_path):
    stop("mpl", 2, lambda: fill(small))
    spare = ("--spare", tmp_path / "spare")
    outcome = invoke("train", *ALONE, *EVERY, *spare, "--out", small / "run")
    assert outcome.code == 2
    assert "not stored" not in outcome.err
    assert "step 3 of 3 of finetune is stored" in outcome.err
    assert state_files.states(tmp_path / "spare" / "run")
    os.remove(small / "filler")
    assert invoke("train", "--resume", small / "run", *spare).code == 0
    found, expected = contents(small / "run"), whole(*ALONE)
    # The log has no spare folder, and may lack the lines that it had no room for.
    assert {name for name in expected if found.get(name) != expected[name]} <= {"metrics.jsonl", "plots/curves.png"}
    assert state_files.states(tmp_path / "spare" / "run") == []


@pytest.mark.parametrize(
    "name", ["final.safetensors", "confusion.json", "curves.png", "summary.json", "config.toml", "split.json"]
)
def test_each_file_may_meet_a_full_disk(whole, tmp_path, monkeypatch, name):
    """The run ends with one line, and goes on to the same files."""
    write = storage.write

    def failing(path, save):
        if path.name == name:
            raise storage.InputError(
                f"{path} cannot be written (No space left on device): name a file that you may write"
            )
        write(path, save)

    for module in (storage, sys.modules["metapl.training.checkpoint"], sys.modules["metapl.files.storage"]):
        monkeypatch.setattr(module, "write", failing)
    outcome = invoke("train", *ALONE, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "No space left on device" in outcome.err
    monkeypatch.undo()
    if name == "config.toml":
        shutil.rmtree(tmp_path / "run")
        return
    assert resumed(tmp_path / "run") == whole(*ALONE)


STARTING = ["config.toml", "environment.json", "split.json", "data.json", "fingerprint.json"]
ENDING = ["final.safetensors", "confusion.json", "curves.png", "summary.json"]


@pytest.mark.parametrize("name", [*STARTING, *ENDING, "seeds.json"])
def test_a_file_system_without_room_at_each_file(whole, small, monkeypatch, name):
    """A real one, full from the moment on at which this file is written."""
    write = storage.write

    def filling(path, save):
        if path.name == name:
            fill(small)
        write(path, save)

    for module in (storage, checkpoint):
        monkeypatch.setattr(module, "write", filling)
    args = ("train", *ALONE, *(["--seeds", 2] if name == "seeds.json" else []))
    outcome = invoke(*args, "--out", small / "run")
    assert outcome.code == 2
    *warnings, last = outcome.err.splitlines()
    assert "No space left on device" in last
    assert ["is not stored" in one for one in warnings] == [True] * (name in ENDING)  # nothing was to be stored before
    monkeypatch.undo()
    os.remove(small / "filler")
    if (small / "run" / "config.toml").exists():
        assert resumed(small / "run") == whole(*ALONE)
    else:
        assert invoke(*args, "--out", small / "run").code == 0
        assert contents(small / "run") == whole(*args[1:])


def test_a_folder_that_cannot_be_written_for_a_while(whole, stop, cover, tmp_path, at_once):
    """As a network drive that goes away: said once, and the run goes on from what was stored before."""
    run = tmp_path / "run"
    stop("mpl", 2, lambda: cover(run))
    outcome = invoke("train", *ALONE, *EVERY, "--out", run)
    assert outcome.code == 2
    assert outcome.err.count("a state of the run is not stored, and the one before stays") == 1
    assert "Read-only file system" in outcome.err
    assert outcome.err.endswith(f"of mpl is stored, `metapl train --resume {run}` goes on\n")
    cover.off(run)
    assert resumed(run) == whole(*ALONE)


def test_a_folder_that_is_renamed_is_followed(whole, stop, tmp_path, at_once):
    stop("mpl", 2, lambda: os.rename(tmp_path / "run", tmp_path / "other"))
    assert invoke("train", *ALONE, *EVERY, "--out", tmp_path / "run").code == 0
    assert contents(tmp_path / "other") == whole(*ALONE)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("taken", [False, True])
def test_a_folder_that_is_renamed_while_a_state_is_written(whole, tmp_path, monkeypatch, taken):
    run, other, write = tmp_path / "run", tmp_path / "other", stored.write

    def renaming(path, found):
        if not other.exists():
            os.rename(run, other)
            if taken:
                run.mkdir()
                (run / "mine").write_text("precious")
        write(path, found)

    monkeypatch.setattr(stored, "write", renaming)
    assert invoke("train", *ALONE, *EVERY, "--out", run).code == 0
    assert contents(other) == whole(*ALONE)
    assert [path.name for path in run.rglob("*")] == (["mine"] if taken else [])
    assert run.exists() == taken


def test_a_folder_that_is_removed_comes_back(whole, stop, tmp_path, at_once):
    """Only the lines of the log that were in it are lost, and the picture of them."""
    stop("mpl", 2, lambda: shutil.rmtree(tmp_path / "run"))
    outcome = invoke("train", *ALONE, *EVERY, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.endswith(f"is stored, `metapl train --resume {tmp_path / 'run'}` goes on\n")
    outcome = invoke("train", "--resume", tmp_path / "run")
    assert outcome.code == 0
    assert "metrics.jsonl lacks 3 of the 3 lines" in outcome.err
    found, expected = contents(tmp_path / "run"), whole(*ALONE)
    assert {name for name in expected if found.get(name) != expected[name]} == {"metrics.jsonl", "plots/curves.png"}


LIMITED = """
import resource, sys
from metapl.cli import main, display
from metapl.core import torch_private
torch_private.load_forward_formulas()
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + int(sys.argv.pop(1)), -1))
sys.argv[0] = "metapl"
main.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory in use is read from /proc")
def test_a_process_that_may_take_no_more_memory(tmp_path):
    """Its first phase needs little; the second one needs more than the system gives it."""
    run = tmp_path / "run"
    args = ["--device", "cpu", "--method", "uda", "--guide", "none", "--steps", "2", "--batch", "1200"]
    args += ["--model", "convnet:width=128,depth=2", "--out", str(run)]
    command = [sys.executable, "-c", LIMITED, str(400 * 2**20), "train", *args]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 2
    assert "step 2 of 2 of supervised is stored, `metapl train --resume" in found.stderr
    assert "metapl: there is not enough memory for this: give --microbatch" in found.stderr
    assert state_files.newest(run).phase == "supervised"


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["supervised", "pseudo-labels", "uda", "mpl", "finetune"])
def test_a_process_that_is_told_to_end_does_so_within_ten_seconds(tmp_path, phase):
    """In the middle of long steps of each phase."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "metapl", "train", "--out", run, "--device", "cpu", "--steps", "8"]
    command += [
        "--method",
        "mpl",
        "--grad",
        "exact",
        "--finetune-steps",
        "5000",
        "--batch",
        "512",
        "--report-every",
        "1",
        "--model",
        "mlp:width=64",
    ]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        log = run / "metrics.jsonl"
        until = time.monotonic() + 300
        while time.monotonic() < until and not (log.exists() and f'"{phase}"' in log.read_text()):
            time.sleep(0.01)
        process.terminate()
        began = time.monotonic()
        _, said = process.communicate()
        assert time.monotonic() - began < 10
    assert process.returncode == 128 + 15
    assert said.decode().startswith("metapl: stopped by SIGTERM: step ")
    assert f"`metapl train --resume {run}` goes on" in said.decode()


def test_a_state_that_cannot_be_written_is_tried_again(tmp_path, monkeypatch, at_once, whole):
    failures = iter([True, True, False])
    write = sealed.write

    def sometimes(*args):
        if next(failures, False):
            raise sealed.InputError("no room")
        write(*args)

    monkeypatch.setattr(sealed, "write", sometimes)
    outcome = invoke("train", *ALONE, *EVERY, "--out", tmp_path / "run")
    assert outcome.code == 0
    assert outcome.err == "metapl: a state of the run is not stored, and the one before stays: no room\n"
    assert contents(tmp_path / "run") == whole(*ALONE)


def test_the_log_is_written_line_by_line(stop, tmp_path):
    lines = []
    stop("mpl", 3, lambda: lines.extend((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()))
    assert invoke("train", *ALONE, "--out", tmp_path / "run").code == 0
    assert [json.loads(line)["step"] for line in lines] == [2]
