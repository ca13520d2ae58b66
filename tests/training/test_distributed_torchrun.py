"""`metapl train` under torchrun: what is written, what becomes of processes that die or stand still, and going on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asserts import assert_close_tree

COMMON = [
    *("--data", "digits", "--labels", "20", "--validation", "30", "--method", "mpl", "--grad", "exact"),
    *("--batch", "24", "--report-every", "20", "--finetune-steps", "20", "--no-baselines"),
    *("--model", "mlp:width=12", "--device", "cpu", "--checkpoint-every", "10"),
]
SHORT, LONG = ["--steps", "60"], ["--steps", "100000"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(count, *args, options=()):
    if count == 1:
        return [sys.executable, "-m", "metapl", "train", *args]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *options]
    return [*torchrun, "-m", "metapl", "train", *args]


def run(count, *args, options=()):
    """The exit code, and what was said, of a command that ends by itself."""
    done = subprocess.run(
        command(count, *args, options=options),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def log(folder):
    """What was measured on the way, without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: line[name] for name in ("step", "metrics", "validation")} for line in lines]


def scores(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))["test"]


def workers(parent):
    """The processes that torchrun has started, by rank; Linux only."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"\nPPid:\t{parent}\n" in (place / "status").read_text(encoding="utf-8"):
                variables = (place / "environ").read_bytes().split(b"\0")
                ranks = [one.removeprefix(b"RANK=") for one in variables if one.startswith(b"RANK=")]
                found.update({int(rank): int(place.name) for rank in ranks})
        except OSError:
            continue
    return found


class Going:
    """A command that is killed by the end of the block, whatever happens."""

    def __init__(self, count, folder, *args, options=()):
        self.folder, self.count = folder, count
        self.said = folder.with_suffix(".log").open("w+", encoding="utf-8")
        line = command(count, *args, "--out", str(folder), options=options)
        self.process = subprocess.Popen(line, env=ENVIRONMENT, stdout=self.said, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in workers(self.process.pid).values():
            os.kill(process, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.said.close()

    def states(self):
        return sorted((self.folder / "checkpoints").glob("state-*.safetensors"))

    def until(self, condition, seconds=300):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.text()
            assert self.process.poll() is None or condition(), self.text()
            time.sleep(0.1)

    def hit(self, rank, number):
        """Send a signal to a process once a state is stored."""
        self.until(self.states)
        os.kill(workers(self.process.pid)[rank], number)

    def text(self):
        self.said.flush()
        return self.folder.with_suffix(".log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    code, said = run(1, *COMMON, *SHORT, "--out", str(out))
    assert code == 0, said
    return out


def require_like(found, whole):
    assert sorted(path.name for path in found.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert_close_tree(log(found), log(whole), rtol=2e-3, atol=1e-5)
    assert_close_tree(scores(found), scores(whole), rtol=2e-2, atol=1e-5)


@pytest.mark.slow
def test_one_process_writes_what_one_alone_does(whole, tmp_path):
    code, said = run(2, *COMMON, *SHORT, "--out", str(tmp_path / "run"))
    assert code == 0, said
    assert "2 processes" in said
    assert said.count("top-1") == 1  # one table
    require_like(tmp_path / "run", whole)


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.long), pytest.param(2, marks=pytest.mark.slow)])
def test_four_processes_are_killed_and_others_go_on(whole, tmp_path, count):
    folder = tmp_path / "run"
    with Going(4, folder, *COMMON, *SHORT) as going:
        going.hit(2, signal.SIGKILL)
        going.until(lambda: going.process.poll() is not None)
        said = going.text()
    assert "metapl train --resume" in said
    assert re.search(r"rank +: 2 ", said)  # torchrun names who failed first
    assert not (folder / "summary.json").exists()
    code, said = run(count, "--resume", str(folder))
    assert code == 0, said
    if count == 2:
        assert "4 processes stored the state and 2 go on" in said
    require_like(folder, whole)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_stands_still_ends_all_by_its_name(tmp_path, rank):
    with Going(2, tmp_path / "run", *COMMON, *LONG) as going:
        going.hit(rank, signal.SIGSTOP)
        pid = workers(going.process.pid)[rank]
        going.until(lambda: going.process.poll() is not None)
        said = going.text()
    assert re.search(rf"metapl: .*no sign of life from process {rank} of 2 \(.*pid {pid}\)", said)
    assert ("is stored, `metapl train --resume" in said) == (rank == 1)


@pytest.mark.long
def test_torchrun_starts_them_again_and_the_run_goes_on(whole, tmp_path):
    with Going(2, tmp_path / "run", *COMMON, *SHORT, options=("--max-restarts", "1")) as going:
        going.hit(1, signal.SIGKILL)
        going.until(lambda: going.process.poll() is not None)
        assert going.process.returncode == 0, going.text()
    require_like(tmp_path / "run", whole)


@pytest.mark.long
def test_the_time_limit_of_process_0_ends_all(tmp_path):
    code, said = run(2, *COMMON, *LONG, "--time-limit", "15s", "--out", str(tmp_path / "run"))
    assert code != 0
    assert len(re.findall(r"metapl: .*", said)) == 1
    assert "--time-limit 15s is over" in said


@pytest.mark.long
@pytest.mark.parametrize(("options", "line"), [(["--lr", "1e30"], "is no longer finite"), (["--grad", "x"], "unknown")])
def test_bad_input_is_one_line(tmp_path, options, line):
    code, said = run(2, *COMMON, *SHORT, *options, "--out", str(tmp_path / "run"))
    assert code != 0
    assert len(re.findall(f"metapl: .*{line}", said)) == 1, said


@pytest.mark.long
def test_a_finished_run_has_nothing_to_go_on_with(whole):
    code, said = run(2, "--resume", str(whole))
    assert code == 0, said
    assert said.count("is finished") == 1
