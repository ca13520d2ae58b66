"""Kills one of the processes that train a run, or has it stand still, and measures how long all of them take to end.

    OMP_NUM_THREADS=1 python benchmarks/lost_processes.py --trials 2

Each trial starts `torchrun -m metapl train` anew, waits for the first stored state, and sends SIGKILL or SIGSTOP to a
process. It prints the seconds until torchrun has ended, and who was named. Linux only.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ARGUMENTS = [
    *("--data", "digits", "--labels", "20", "--validation", "30", "--method", "mpl", "--grad", "exact"),
    *("--steps", "100000", "--batch", "24", "--no-baselines", "--model", "mlp:width=12", "--device", "cpu"),
    *("--checkpoint-every", "10", "--report-every", "20"),
]


def workers(parent: int) -> dict[int, int]:
    """The processes that torchrun has started, by rank."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"\nPPid:\t{parent}\n" in (place / "status").read_text(encoding="utf-8"):
                ranks = re.findall(rb"(?:^|\0)RANK=(\d+)", (place / "environ").read_bytes())
                found.update({int(rank): int(place.name) for rank in ranks})
        except OSError:
            continue
    return found


def trial(count: int, rank: int, number: int) -> tuple[float, str]:
    """Seconds until all have ended, and what metapl said last."""
    with tempfile.TemporaryDirectory() as place:
        out, said = Path(place) / "run", Path(place) / "said"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        with said.open("w", encoding="utf-8") as file:
            command = [*torchrun, "-m", "metapl", "train", *ARGUMENTS, "--out", str(out)]
            process = subprocess.Popen(command, stdout=file, stderr=file)
        while not [*(out / "checkpoints").glob("state-*")]:
            time.sleep(0.1)
        start = time.monotonic()
        os.kill(workers(process.pid)[rank], number)
        process.wait()
        lines = re.findall(r"metapl: .*", said.read_text(encoding="utf-8"))
        return time.monotonic() - start, lines[-1] if lines else ""


def main() -> None:
    """Run the trials, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    for name in ("SIGKILL", "SIGSTOP"):
        for rank in range(options.processes):
            found = [trial(options.processes, rank, getattr(signal, name)) for _ in range(options.trials)]
            seconds = [one for one, _ in found]
            print(f"{name} of process {rank}: {statistics.median(seconds):.0f} s, at most {max(seconds):.0f} s")
            print(f"    {found[-1][1]}", flush=True)


if __name__ == "__main__":
    main()
