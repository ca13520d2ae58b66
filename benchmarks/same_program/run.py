"""One program in four libraries: its lines, seconds, memory and gradient.

    python benchmarks/same_program/run.py

The program is the gradient of a held-out loss with respect to the learning rate, through many steps of SGD with
momentum. Each library runs in processes of its own that take turns; seconds are medians. Memory is what the peak of a
process grows by from a gradient through one step to one through many, as the system counts it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

WAYS: dict[str, dict[str, str]] = {
    "metapl": {},
    "metapl, method=reverse": {"method": "reverse"},
    "higher": {},
    "torchopt": {},
    "jax": {},
}
"""Each row, which begins with the name of its library, and the options of its program."""
RATE = 0.02


def measure(way: str, steps: int, repeats: int) -> dict[str, float]:
    """The gradient of one row through so many steps, what it took and what it kept; in this process."""
    import torch  # noqa: PLC0415 - the parent imports none of this

    torch.set_num_threads(1)
    problem = importlib.import_module("problem").problem()
    gradient = partial(importlib.import_module(f"by_{library(way)}").gradient, RATE, **WAYS[way])
    gradient(1, *problem)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = gradient(steps, *problem)  # and whatever is compiled once
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        gradient(steps, *problem)
        seconds.append(time.process_time() - start)
    return {"gradient": found, "seconds": min(seconds), "MiB": memory / 1024}


def library(way: str) -> str:
    """The library of a row."""
    return way.partition(",")[0]


def lines(way: str) -> int:
    """The lines of a program without its docstrings and empty lines."""
    text = (Path(__file__).parent / f"by_{library(way)}.py").read_text(encoding="utf-8")
    return sum(bool(line.strip()) and '"""' not in line for line in text.splitlines())


def main() -> None:
    """Let them take turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=2, help="gradients that are timed in a process; the best counts")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each library")
    parser.add_argument("--one", choices=WAYS, help="measure one library here, and print JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.steps, args.repeats)))
        return
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    own = [sys.executable, __file__, "--steps", str(args.steps), "--repeats", str(args.repeats)]
    for _ in range(args.rounds):
        for way, found in rows.items():
            done = subprocess.run([*own, "--one", way], env=environment, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    print("| program | lines | s | MiB | gradient |\n| --- | --- | --- | --- | --- |")
    for way, found in rows.items():
        seconds, memory = (statistics.median(one[what] for one in found) for what in ("seconds", "MiB"))
        print(f"| {way} | {lines(way)} | {seconds:.2f} | {memory:.0f} | {found[0]['gradient']:.12g} |")


if __name__ == "__main__":
    main()
