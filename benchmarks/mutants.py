"""Change the code in one place at a time, and see whether a test goes red.

    python benchmarks/mutants.py metapl/optim metapl/methods/mpl.py --sample 250

`mutations.py` says what is changed. Torch is imported once. Every mutant is a fork of that, which imports metapl with
the changed file in place of the real one, and runs the tests that pass through the changed line; coverage of the
unchanged code knows which. The tools that one would take change functions only, not what is made at import, and leave
out no statement and no `with`, or start Python and import torch for every mutant.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.machinery
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import coverage
import pytest
import torch
from mutations import Mutant, made, mutants

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "metapl/optim": ("optim",),
    "metapl/methods": ("methods",),
    "metapl/methods/consistency": ("methods/consistency",),
    "metapl/methods/imbalance.py": ("methods/test_imbalance.py",),
    "metapl/estimators": ("estimators", "core/test_complex.py", "testing"),
    "metapl": (
        "core",
        "nn",
        "estimators/test_route.py",
        "estimators/test_stopped_gradients.py",
        "estimators/test_part.py",
    ),
}
"""Folders and files of tests that run against a file, by the longest beginning of its path."""


def forked(work: Callable[[], int], limit: float) -> int | None:
    """The exit code of `work` in a process of its own; None where that takes longer."""
    if not (child := os.fork()):
        os.setsid()
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        code = 2  # whatever a mutant raises at import
        with contextlib.suppress(BaseException):
            code = work()
        os._exit(code)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run(tests: Sequence[str], *options: str, path: Path | None = None, code: Any = None) -> int:
    """The exit code of pytest, with the code in place of that file's."""
    real = importlib.machinery.SourceFileLoader.get_code

    def get_code(loader: Any, name: str) -> Any:
        return code if path and Path(loader.path) == path else real(loader, name)

    importlib.machinery.SourceFileLoader.get_code = get_code
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # which would take longer than many a test
    return int(pytest.main(["-q", "-x", "-m", "not gpu", "--assert=plain", "-p", "no:cacheprovider", *options, *tests]))


def against(path: Path) -> tuple[str, ...]:
    """The test files that run against a file."""
    relative = path.relative_to(ROOT).as_posix()
    places = [Path("tests") / one for one in TESTS[max(filter(relative.startswith, TESTS), key=len)]]
    found = [file for place in places for file in (sorted(place.glob("test_*.py")) or [place])]
    return tuple(file.as_posix() for file in found if file.name != "test_modules.py")


def lines(files: tuple[str, ...]) -> dict[str, dict[int, list[str]]]:
    """The tests that pass through each line of each file; "" for those that run at import."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COVERAGE_FILE"] = f"{folder}/coverage"
        how = ("-p", "pytest_cov", "--cov=metapl", "--cov-context=test", "--cov-report=")
        if forked(lambda: run(files, *how), 3600.0) != 0:
            sys.exit(f"the tests must pass first: {' '.join(files)}")
        data = coverage.CoverageData(f"{folder}/coverage")
        data.read()
        return {path: data.contexts_by_lineno(path) for path in data.measured_files()}


def fate(mutant: Mutant, code: Any, by_line: dict[int, list[str]], limit: float) -> str:
    """What became of it: survived, killed, or killed by the clock."""

    def left(tests: Sequence[str]) -> int | None:
        return forked(lambda: run(tests, path=mutant.path, code=code), limit)

    here = {test for line in mutant.lines for test in by_line.get(line, [])}
    near = here - {""} or {test for line in mutant.around for test in by_line.get(line, [])} - {""}
    files = against(mutant.path)
    tests = sorted((test.partition("|")[0] for test in near), key=lambda test: files.index(test.partition("::")[0]))
    end = left(tests) if tests else 4
    # All of the files where the line runs at import too, or where there is no test of that name any more.
    if end in (4, 5) or (end == 0 and "" in here):
        end = left(files)
    return {0: "survived", None: "timeout"}.get(end, "killed")


def main() -> None:
    """Read the arguments, try the mutants, and print who survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", help="files and folders; FILE:LINE for one line")
    parser.add_argument("--sample", type=int, help="so many, drawn from all of them; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--minutes", type=float, default=1e9, help="then stop, and say what there is")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that a mutant may take")
    given = parser.parse_args()
    os.chdir(ROOT)
    torch.set_num_threads(1)
    torch.func.jvp(torch.func.grad(lambda x: x.log_softmax(0)[0]), (torch.ones(2),), (torch.ones(2),))  # compiles rules
    for name in ("higher", "hypothesis", "scipy.stats", "sklearn.datasets"):
        __import__(name)
    gc.freeze()
    found: list[Mutant] = []
    for name, _, line in (one.partition(":") for one in given.paths):
        for path in sorted((ROOT / name).rglob("*.py")) or [ROOT / name]:
            found += [mutant for mutant in mutants(path) if not line or int(line) == mutant.lines.start]
    chosen = random.Random(given.seed).sample(found, min(given.sample or len(found), len(found)))
    fates: dict[str, Counter[str]] = {}
    covered = {files: lines(files) for files in {against(mutant.path) for mutant in chosen}}
    end_of_time = time.monotonic() + 60.0 * given.minutes
    for mutant in chosen:
        if time.monotonic() > end_of_time:
            break
        try:
            code, text = made(mutant)
        except SyntaxError:  # not a program any more
            continue
        end = fate(mutant, code, covered[against(mutant.path)].get(str(mutant.path), {}), given.limit)
        name = mutant.path.relative_to(ROOT).as_posix()
        fates.setdefault(name, Counter())[end] += 1
        if end == "survived":
            print(f"{name}:{mutant.lines.start}  {text}", flush=True)
    for name, counts in fates.items():
        print(f"{name}: {counts.total() - counts['survived']} of {counts.total()} killed ({counts['timeout']} by time)")
    total = sum(fates.values(), Counter())
    print(f"killed {total.total() - total['survived']} of {total.total()}, drawn from {len(found)}")


if __name__ == "__main__":
    main()
