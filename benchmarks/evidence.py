"""Make the studies of docs/results again, by the commands on their pages, and compare every run with the published one.

    python benchmarks/evidence.py --out DIR                  # all of them: several hours
    python benchmarks/evidence.py --out DIR noise moons      # some

For each study: how many of its published runs came out the same to the last digit, and the wall time. What is finished
in DIR is not made again, and adds no time. The published numbers are those of one thread a process. A measure that a
later version has added is not compared.
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
from typing import Any

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
    made, published = (_runs(one) for one in (out / name / "runs.jsonl", path))
    same = sum(key in made and within(run, made[key]) for key, run in published.items())
    return f"{same} of {len(published)} published runs the same"


def _runs(path: Path) -> dict[str, Any]:
    runs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {json.dumps([run["setting"], run["arm"], run["seed"]]): run for run in runs}


def within(published: Any, made: Any) -> bool:
    """Whether all that was published came out the same."""
    if isinstance(published, dict) and isinstance(made, dict):
        return all(key in made and within(value, made[key]) for key, value in published.items())
    return bool(published == made)


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
