"""Kills runs at random moments, has them go on, and compares every file with that of a run that was never killed.

    python benchmarks/kill_and_resume.py --trials 66 --in-a-write 33
    python benchmarks/kill_and_resume.py --trials 33 --in-a-write 0 --signal TERM

Each trial takes the next of the kinds below. It is killed by SIGKILL once or twice, at moments drawn from what a whole
run takes of the processor; in the first trials, as many as are wanted, at the next write of a state after that moment.
Then it goes on to its end. Times, rates and memory are left out of the comparison, and nothing else is. Linux only.

With `--signal TERM` each process must say how its run goes on, and the longest time until it ended is printed.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import matplotlib.backends.backend_agg  # noqa: F401 - here once, and not in each of the processes
import numpy as np
import torch
from PIL import Image
from sklearn import decomposition, linear_model, neighbors, semi_supervised  # noqa: F401 - the same
from sklearn.datasets import load_digits

from metapl.cli import display, main  # noqa: F401 - the same
from metapl.core import torch_private
from metapl.data.formats import images

SHORT = ["--device", "cpu", "--batch", "24", "--report-every", "15"]
COMMON = [
    *("--method", "mpl", "--grad", "exact", "--steps", "40", "--finetune-steps", "20"),
    *("--labels", "20", "--validation", "30"),
    *SHORT,
]
MLP = ["--model", "mlp:width=12"]
ALONE = [*COMMON, *MLP, "--no-baselines"]
KINDS: dict[str, list[str]] = {
    "exact": [*COMMON, *MLP],
    "first-order": [*ALONE, "--grad", "first-order"],
    "reduced": [*ALONE, "--method", "reduced"],
    "population": ["--seeds", "3", *ALONE],
    "folder": ["--data", "{images}", "--no-baselines", "--model", "convnet:width=4,depth=1,norm=batch", *COMMON],
    "shards": ["--data", "{shards}", "--no-baselines", "--model", "mlp:width=12", *COMMON],
    "K = 4": ["--unroll", "4", *ALONE],
    "two processes": ["--seeds", "3", *ALONE],
    "finetuning": [*ALONE, "--steps", "8", "--finetune-steps", "60"],
    "default": ["--steps", "60", *SHORT, *MLP],
    "auto": ["--data", "moons:points=200", *("--labels", "20", "--validation", "0", "--steps", "60"), *SHORT, *MLP],
}
"""What is trained; `two processes` share three seeds, `default` is guided, `auto` compares methods before."""

OFTEN = ["--checkpoint-every", "1"]
PLACE = Path(tempfile.mkdtemp(prefix="kills-"))
SAID = PLACE / "said"
"""What the processes of a trial have said on standard error."""
VARYING = {
    "metrics.jsonl": {"images_per_second", "seconds"},
    "summary.json": {"seconds", "peak_memory_bytes"},
}
"""What may differ: fields of JSON by the name of the file."""


def start(kind: str, *args: str) -> list[int]:
    """`metapl train ARGS`, in as many processes as the kind has, forked from this one: importing torch takes long."""
    count = 2 if kind == "two processes" else 1
    return [os.fork() or train({"WORLD_SIZE": str(count), "RANK": str(rank)}, args) for rank in range(count)]


def train(environment: dict[str, str], args: tuple[str, ...]) -> NoReturn:
    """Be `metapl train ARGS`, in silence."""
    code = 1
    try:
        os.environ.update(environment)
        sys.argv = ["metapl", "train", *args]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        main.main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    finally:
        os._exit(code)


def end(processes: list[int]) -> float:
    """Wait for processes that are to succeed; the seconds of the processor that the first one took."""
    taken = []
    for one in processes:
        _, status, used = os.wait4(one, 0)
        taken.append(used.ru_utime + used.ru_stime)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"a run that should have ended has failed: {SAID.read_text(encoding='utf-8')}")
    return taken[0]


def used(process: int) -> float:
    """Seconds of the processor that a process has taken so far; infinite once it has ended."""
    state, *fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return float("inf") if state == "Z" else (int(fields[10]) + int(fields[11])) / os.sysconf("SC_CLK_TCK")


class Killed(NamedTuple):
    """How processes were killed."""

    in_a_write: bool
    codes: list[int]
    """Of those that had not ended before."""
    seconds: float
    """Until all of them had ended."""


def kill(processes: list[int], after: float, folder: Path, in_a_write: bool, number: int) -> Killed:
    """Kill after so many seconds of the processor, or in the first write from then on."""
    codes = []
    while used(processes[0]) < after:
        time.sleep(1e-3)
    while in_a_write and not half(folder) and used(processes[0]) < float("inf"):
        time.sleep(1e-4)
    began = time.monotonic()
    for one in processes:
        with suppress(ProcessLookupError):
            os.kill(one, number)
    for one in processes:
        with suppress(ChildProcessError):
            codes.append(os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]))
    return Killed(half(folder), codes, time.monotonic() - began)


def half(folder: Path) -> bool:
    """Whether a state of a run, or of the first of several, is half written."""
    for place in (folder, folder / "seed0"):
        with suppress(OSError), os.scandir(place / "checkpoints") as files:
            if any(".tmp" in file.name for file in files):
                return True
    return False


def contents(folder: Path) -> dict[str, Any]:
    """Every file below a folder, without what may differ."""
    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def content(path: Path) -> Any:
    """A file without what may differ."""
    if path.name not in VARYING:
        return path.read_bytes()
    text = path.read_text(encoding="utf-8")
    values = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]
    return [{key: one for key, one in value.items() if key not in VARYING[path.name]} for value in values]


def make_data(place: Path) -> dict[str, str]:
    """Digits as a folder of images, and as shards."""
    x, y = load_digits(return_X_y=True)
    (place / "shards").mkdir()
    for index in range(300):
        path = place / "images" / str(y[index]) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((x[index].reshape(8, 8) * 15).astype(np.uint8)).save(path)
        label = place / "label"
        label.write_text(str(y[index]), encoding="utf-8")
        with tarfile.open(place / "shards" / f"{index // 100}.tar", "a") as archive:
            archive.add(path, path.name)
            archive.add(label, f"{path.stem}.cls")
    return {name: str(place / name) for name in ("images", "shards")}


def whole(kind: str, args: list[str]) -> tuple[dict[str, Any], float]:
    """The files of a run that is not killed, and the seconds of the processor that it takes."""
    out = PLACE / "whole"
    seconds = end(start(kind, *args, "--out", str(out)))
    found = contents(out)
    shutil.rmtree(out)
    return found, seconds


def trial(kind: str, args: list[str], moments: list[float], in_a_write: bool, number: int) -> tuple[Path, list[Killed]]:
    """Kill a run at moments, each counted from its last start, and have it end: its folder, and how it was killed."""
    out, killed, command = PLACE / "run", [], [*args, "--out", str(PLACE / "run")]
    for after in moments:
        killed.append(kill(start(kind, *command, *OFTEN), after, out, in_a_write, number))
        if any(out.rglob("config.toml")):
            command = ["--resume", str(out)]
    said = SAID.read_text(encoding="utf-8") if SAID.exists() else ""
    stopped = sum(code == 128 + number for one in killed for code in one.codes)
    if number != signal.SIGKILL and said.count("metapl train --resume") + said.count("same command") < stopped:
        raise SystemExit(f"{stopped} processes were stopped, and said: {said}")
    end(start(kind, *command))
    SAID.unlink(missing_ok=True)
    return out, killed


def asked() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=66)
    parser.add_argument("--in-a-write", type=int, default=33, help="trials that are killed while a state is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=[*KINDS], choices=[*KINDS])
    parser.add_argument("--signal", default="KILL", choices=["KILL", "TERM"])
    return parser.parse_args()


def measure() -> None:
    """Run the trials, and print a line for each."""
    options = asked()
    torch.set_num_threads(1)
    images.IN_MEMORY = 0  # they are read when they are asked for, as larger ones are
    torch_private.load_forward_formulas()  # once for all, and with `display` all that takes long to import
    draw, data, known = random.Random(options.seed), make_data(PLACE), {}
    counts: collections.Counter[str] = collections.Counter()
    longest = 0.0
    for number in range(options.trials):
        kind = options.kinds[number % len(options.kinds)]
        args = [one.format(**data) for one in KINDS[kind]]
        if kind not in known:
            known[kind] = whole(kind, args)
        expected, seconds = known[kind]
        moments = [draw.uniform(0.0, 1.0) * seconds for _ in range(draw.choice((1, 1, 1, 2)))]
        in_a_write = number < options.in_a_write
        out, killed = trial(kind, args, moments, in_a_write, getattr(signal, f"SIG{options.signal}"))
        found, written = contents(out), sum(one.in_a_write for one in killed)
        same, longest = found == expected, max(longest, *(one.seconds for one in killed))
        kills = sum(any(one.codes) for one in killed)
        counts.update({"trials": 1, "killed": kills > 0, "kills": kills, "in a write": written > 0, "same": same})
        wrong = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        print(f"{number:3} {kind:14} {kills} kills, {written} in a write: {'same' if same else wrong}", flush=True)
        shutil.rmtree(out)
    print(json.dumps({**counts, "seconds to the end of a process, at most": round(longest, 2)}))
    shutil.rmtree(PLACE)


if __name__ == "__main__":
    measure()
