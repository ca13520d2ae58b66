"""Kills runs at random moments, has them go on, and compares every file with that of a run that was never killed.

    python benchmarks/kill_and_resume.py --trials 56 --in-a-write 20

Each trial takes the next of the kinds below. It is killed by SIGKILL once or twice, at moments drawn from the length of
its whole run; in the first trials, as many as are wanted, at the next write of a state after that moment. Then it goes
on to its end. Times, rates and memory are left out of the comparison, and nothing else is.
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
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from metapl.cli import display, main  # noqa: F401 - for all processes
from metapl.core import torch_private
from metapl.data.formats import images

COMMON = [
    *("--method", "mpl", "--grad", "exact"),
    *("--device", "cpu", "--steps", "40", "--finetune-steps", "20", "--batch", "24", "--report-every", "15"),
    *("--labels", "20", "--validation", "30"),
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
}
"""What is trained; `two processes` share three seeds."""

OFTEN = ["--checkpoint-every", "1"]
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
        main.main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    finally:
        os._exit(code)


def end(processes: list[int]) -> None:
    """Wait for processes that are to succeed."""
    for one in processes:
        if os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]):
            raise SystemExit("a run that should have ended has failed")


def kill(processes: list[int], after: float, folder: Path, in_a_write: bool) -> bool:
    """Kill after so many seconds, or in the first write from then on; whether one was going on."""
    time.sleep(after)
    until = time.monotonic() + 60
    while in_a_write and not half(folder) and time.monotonic() < until and not os.waitpid(processes[0], os.WNOHANG)[0]:
        pass
    for one in processes:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    for one in processes:
        with suppress(ChildProcessError):
            os.waitpid(one, 0)
    return half(folder)


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


def measure() -> None:
    """Run the trials, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=56)
    parser.add_argument("--in-a-write", type=int, default=20, help="trials that are killed while a state is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=[*KINDS], choices=[*KINDS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    images.IN_MEMORY = 0  # they are read when they are asked for, as larger ones are
    torch_private.load_forward_formulas()  # once for all, and with `display` all that takes long to import
    draw, place = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="kills-"))
    data = make_data(place)
    whole: dict[str, tuple[dict[str, Any], float]] = {}
    counts: collections.Counter[str] = collections.Counter()
    for trial in range(options.trials):
        kind = options.kinds[trial % len(options.kinds)]
        args = [one.format(**data) for one in KINDS[kind]]
        if kind not in whole:
            began = time.monotonic()
            end(start(kind, *args, "--out", str(place / "whole")))
            whole[kind] = contents(place / "whole"), time.monotonic() - began
            shutil.rmtree(place / "whole")
        expected, seconds = whole[kind]
        out, written, kills = place / "run", 0, draw.choice((1, 1, 1, 2))
        command = [*args, "--out", str(out)]
        for _ in range(kills):
            in_a_write = trial < options.in_a_write
            processes = start(kind, *command, *OFTEN)
            written += kill(processes, draw.uniform(0.2, 1.0) * seconds, out, in_a_write)
            if any(out.rglob("config.toml")):
                command = ["--resume", str(out)]
            elif out.exists() and not any(out.iterdir()):
                out.rmdir()  # made, and nothing is in it yet
        end(start(kind, *command))
        found = contents(out)
        same = found == expected
        counts.update({"trials": 1, "kills": kills, "in a write": bool(written), "bit-identical": same})
        wrong = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        print(f"{trial:3} {kind:14} {kills} kills, {written} in a write: {'same' if same else wrong}", flush=True)
        shutil.rmtree(out)
    print(json.dumps(counts))
    shutil.rmtree(place)


if __name__ == "__main__":
    measure()
