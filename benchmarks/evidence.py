"""Make the studies of docs/results again, by the commands on their pages, and compare every run with the published one.

    python benchmarks/evidence.py --out DIR                  # all of them: several hours
    python benchmarks/evidence.py --out DIR noise moons      # some

For each study: how many of its published runs came out the same to the last digit, and the wall time. What is finished
in DIR is not made again, and adds no time. The published numbers are those of one thread a process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from metapl.training import machine

PAGES = Path(__file__).parents[1] / "docs" / "results"
COMMAND = re.compile(r"metapl ablate docs/results/(?P<name>\S+)\.toml(?P<options>.*?) --out ")


def commands() -> dict[str, list[str]]:
    """Of every study that a page gives the command of: the options beside the file and the folder."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(PAGES.glob("*.md"))]
    return {found["name"]: shlex.split(found["options"]) for text in texts for found in COMMAND.finditer(text)}


def make(name: str, options: list[str], out: Path, processes: int) -> float:
    """Make a study; the seconds it took."""
    started = time.perf_counter()
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(processes),
        "-m",
        "metapl",
        "ablate",
    ]
    given = [str(PAGES / f"{name}.toml"), *options, "--out", str(out / name)]
    subprocess.run([*launch, *given], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - started


def agreement(name: str, out: Path) -> str:
    """How many of the published runs came out the same."""
    path = PAGES / f"{name}.jsonl"
    if not path.exists():
        return "no published runs, it served a choice"
    made, published = (set(one.read_text(encoding="utf-8").splitlines()) for one in (out / name / "runs.jsonl", path))
    return f"{len(made & published)} of {len(published)} published runs the same"


def main() -> None:
    """Make, compare, print."""
    known = commands()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all, if none is given")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    unknown = set(args.names) - set(known)
    if unknown:
        parser.error(f"no page has a command for {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    lines = [json.dumps(machine.environment())]
    for name in args.names or known:
        seconds = make(name, known[name], args.out, args.processes)
        lines.append(f"{name}: {agreement(name, args.out)}, {seconds / 60:.1f} minutes")
        print(lines[-1], flush=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
