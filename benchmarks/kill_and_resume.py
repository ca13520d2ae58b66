"""Kills runs at random moments, has them go on, and compares every file with that of a run that was never killed.

    python benchmarks/kill_and_resume.py --trials 56 --in-a-write 20

Each trial takes the next of the kinds below. It is killed by SIGKILL once, twice or three times, at moments drawn from
the length of its whole run; in the first trials, as many as are wanted, at the next write of a state after that moment.
Then it goes on to its end. Times, rates and memory are left out of the comparison, and nothing else is.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

COMMON = [
    *("--device", "cpu", "--steps", "40", "--finetune-steps", "20", "--batch", "24", "--report-every", "15"),
    *("--labels", "20", "--validation", "30"),
]
MLP = ["--model", "mlp:width=12"]
ALONE = [*COMMON, *MLP, "--no-baselines"]
KINDS: dict[str, list[str]] = {
    "exact": ["--grad", "exact", *COMMON, *MLP],
    "first-order": ["--grad", "first-order", *ALONE],
    "reduced": ["--method", "reduced", *ALONE],
    "population": ["--seeds", "3", *ALONE],
    "folder": ["--data", "{images}", "--no-baselines", "--model", "convnet:width=4,depth=1,norm=batch", *COMMON],
    "shards": ["--data", "{shards}", "--no-baselines", "--model", "mlp:width=12", *COMMON],
    "K = 4": ["--unroll", "4", *ALONE],
    "two processes": ["--seeds", "3", *ALONE],
}
"""What is trained; `two processes` share three seeds."""

OFTEN = ["--checkpoint-every", "1"]
VARYING = {
    "metrics.jsonl": {"images_per_second"},
    "summary.json": {"seconds", "peak_memory_bytes"},
}
"""What may differ: fields of JSON by the name of the file."""


def start(kind: str, *args: str) -> list[subprocess.Popen[bytes]]:
    """`metapl train ARGS`, in as many processes as the kind has."""
    command = [sys.executable, "-m", "metapl", "train", *args]
    count = 2 if kind == "two processes" else 1
    shared = {**os.environ, "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return [subprocess.Popen(command, env={**shared, "RANK": str(rank)}, **pipes) for rank in range(count)]


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait for processes that are to succeed."""
    for one in processes:
        _, said = one.communicate()
        if one.returncode:
            raise SystemExit(f"{' '.join(map(str, one.args))}: {said.decode()}")


def kill(processes: list[subprocess.Popen[bytes]], after: float, folder: Path, in_a_write: bool) -> bool:
    """Kill after so many seconds, or in the first write from then on; whether one was going on."""
    time.sleep(after)
    while in_a_write and any(one.poll() is None for one in processes) and not half(folder):
        pass
    for one in processes:
        if one.poll() is None:
            one.send_signal(signal.SIGKILL)
    for one in processes:
        one.communicate()
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
    text = path.read_text()
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
        label.write_text(str(y[index]))
        with tarfile.open(place / "shards" / f"{index // 100}.tar", "a") as archive:
            archive.add(path, path.name)
            archive.add(label, f"{path.stem}.cls")
    return {name: str(place / name) for name in ("images", "shards")}


def main() -> None:
    """Run the trials, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=56)
    parser.add_argument("--in-a-write", type=int, default=20, help="trials that are killed while a state is written")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, place = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="kills-"))
    data = make_data(place)
    whole: dict[str, tuple[dict[str, Any], float]] = {}
    counts: collections.Counter[str] = collections.Counter()
    for trial in range(options.trials):
        kind = [*KINDS][trial % len(KINDS)]
        args = [one.format(**data) for one in KINDS[kind]]
        if kind not in whole:
            began = time.monotonic()
            end(start(kind, *args, "--out", str(place / "whole")))
            whole[kind] = contents(place / "whole"), time.monotonic() - began
            shutil.rmtree(place / "whole")
        expected, seconds = whole[kind]
        out, written, kills = place / "run", 0, draw.choice((1, 1, 2, 3))
        command = [*args, "--out", str(out)]
        for _ in range(kills):
            in_a_write = trial < options.in_a_write
            processes = start(kind, *command, *OFTEN)
            written += kill(processes, draw.uniform(0.2, 1.0) * seconds, out, in_a_write)
            if any(out.rglob("config.toml")):
                command = ["--resume", str(out)]
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
    main()
