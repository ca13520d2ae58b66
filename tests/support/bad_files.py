"""Thousands of spoiled files for everything that metapl reads: each is read, or refused in one line. A script.

    python tests/bad_files.py --count 6000

For a seed the files are always the same. A file counts as a fault where the reader raises anything but InputError,
warns, takes more than 20 s or 4 GiB, or ends the process; that is another process, which is started again.
With `--one KIND:NUMBER` a single file is read, with its traceback.
"""

import argparse
import collections
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from command import invoke
from good_files import KINDS
from spoil_inside import spoil

from metapl.registry.errors import InputError

MEMORY = 4 * 2**30
"""Bytes of address space beyond those of the process that has imported everything."""

SECONDS = 20
COMMANDS = 10
"""Of so many files one is also read through the command line."""


class Slow(BaseException):
    """A reader took too long."""


def make(kind, number, seed, place):
    """A spoiled example in a new folder, and what is wrong with it."""
    draw = random.Random(f"{seed} {kind} {number}")
    folder, other = place / "given", place / "other"
    for one, name in ((folder, kind), (other, draw.choice(list(KINDS)))):
        one.mkdir()
        KINDS[name].make(one)
    others = sorted(path for path in other.rglob("*") if path.is_file())
    return folder, spoil(folder, others, draw)


def outcome(act):
    """`read`, `refused`, or the fault."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            act()
    except InputError as error:
        text = str(error)
        return (
            "refused" if "\n" not in text and len(text) < 2000 else f"a refusal of {len(text)} letters: {text[:200]!r}"
        )
    except (Exception, Slow) as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [one for one in where if "/metapl/" in one.filename or "/cli/" in one.filename] or where
        return f"{type(error).__name__}: {str(error)[:150]!r} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"
    return "read"


def command_outcome(args):
    found = invoke(*args)
    lines = found.err.count("\n")
    if found.code == 2 and found.err.startswith("metapl: ") and lines == 1:
        return "refused"
    return (
        "read" if found.code == 0 and lines == 0 else f"exit code {found.code} and {lines} lines: {found.err[:150]!r}"
    )


def trial(kind, number, seed):
    """The outcomes of one file: of the reader, and for some of the command line."""
    with tempfile.TemporaryDirectory() as place:
        folder, what = make(kind, number, seed, Path(place))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            found = [outcome(lambda: KINDS[kind].read(folder))]
            if KINDS[kind].command and number % COMMANDS == 0:
                signal.setitimer(signal.ITIMER_REAL, 3 * SECONDS)
                found.append(outcome(lambda: found.append(command_outcome(KINDS[kind].command(folder)))))
                found = found[:2]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return found, what


def _slow(*_):
    raise Slow


def work(kind, first, last, seed):
    """Read some files, a line of JSON for each."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGALRM, _slow)
    for number in range(first, last):
        found, what = trial(kind, number, seed)
        sys.__stdout__.write(json.dumps([number, found, what]) + "\n")
        sys.__stdout__.flush()


def run(kind, count, seed):
    """The outcomes of all files of a kind: number, outcomes, what was spoiled."""
    found, first = [], 0
    while first < count:
        command = [sys.executable, __file__, "--work", f"{kind}:{first}:{count}", "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
        found += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        first = found[-1][0] + 1 if found else first
        if done.returncode:
            found.append([first, [f"the process ended with {done.returncode}: {done.stderr[-300:]!r}"], "?"])
            first += 1
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=6000, help="files, in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--one", help="KIND:NUMBER")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        kind, number = args.one.split(":")
        with tempfile.TemporaryDirectory() as place:
            folder, what = make(kind, int(number), args.seed, Path(place))
            sys.stdout.write(f"{what}\n")
            KINDS[kind].read(folder)
        return
    if args.work:
        kind, first, last = args.work.split(":")
        work(kind, int(first), int(last), args.seed)
        return
    faults = 0
    for kind in args.kinds:
        found = run(kind, -(-args.count // len(args.kinds)), args.seed)
        counts = collections.Counter(
            one if one in ("read", "refused") else "faults" for _, all_, _ in found for one in all_
        )
        faults += counts["faults"]
        sys.stdout.write(
            f"{kind:20} {len(found):5} files: {', '.join(f'{n} {name}' for name, n in sorted(counts.items()))}\n"
        )
        for number, all_, what in found:
            for one in all_:
                if one not in ("read", "refused"):
                    sys.stdout.write(f"    {kind}:{number} ({what}): {one}\n")
        sys.stdout.flush()
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
