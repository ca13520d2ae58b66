"""A type checker reads an estimator of somebody else's: a right one passes, and a wrong signature is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

import metapl

ROOT = Path(metapl.__file__).parents[1]

RIGHT = """
from metapl.core.types import Estimator, Instance, MetaGradient, Optimizer, PyTree

def estimate(instance: Instance, memory: PyTree) -> tuple[MetaGradient, PyTree]:
    state = instance.state
    zero = instance.problem.outer(state.params, state.buffers, instance.outer_batch)
    return MetaGradient(instance.thetas, state, zero, zero, zero, {}), memory

def accepts(optimizer: Optimizer) -> None:
    return None

def plugin(*, factor: float = 0.5) -> Estimator:
    return Estimator(lambda: (), estimate, "approximate", ("soft",), "1 F", accepts=accepts)
"""

SIGNATURE = "def estimate(instance: Instance, memory: PyTree) -> tuple[MetaGradient, PyTree]:"

WRONG = {
    "no memory": (SIGNATURE, SIGNATURE.replace(", memory: PyTree", "").replace(":\n", ":\n    memory = ()\n")),
    "the instance in pieces": (SIGNATURE, SIGNATURE.replace("memory: PyTree", "state: PyTree, memory: PyTree")),
    "another first argument": (SIGNATURE, SIGNATURE.replace("instance: Instance", "instance: Optimizer")),
    "the meta-gradient alone": (SIGNATURE, SIGNATURE.replace("tuple[MetaGradient, PyTree]", "MetaGradient")),
    "the two the other way round": (
        SIGNATURE,
        SIGNATURE.replace("tuple[MetaGradient, PyTree]", "tuple[tuple[()], MetaGradient]"),
    ),
    "a claim of its own": ('"approximate"', '"perfect"'),
    "an accepts of another thing": ("optimizer: Optimizer", "optimizer: Instance"),
}


def errors(code, place):
    """What mypy says of a plug-in; torch itself is not read, which would take a minute."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    if not (ROOT / "metapl" / "core" / "types.py").exists():
        pytest.skip("the sources are not laid out as a package")
    (place / "plugin.py").write_text(code, encoding="utf-8")
    skipped = "[mypy]\nmypy_path = {}\n[mypy-torch.*]\nfollow_imports = skip\nignore_missing_imports = True\n"
    (place / "mypy.ini").write_text(skipped.format(ROOT), encoding="utf-8")
    options = ["--config-file", "mypy.ini", "--cache-dir", str(place.parent / "cache"), "plugin.py"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options], cwd=place, capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("plugin.py") and "error:" in line]


def test_a_right_estimator_passes(tmp_path):
    assert errors(RIGHT, tmp_path) == []


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one_is_refused(name, tmp_path):
    before, after = WRONG[name]
    assert before in RIGHT
    found = errors(RIGHT.replace(before, after), tmp_path)
    assert any('to "Estimator"' in one and "[arg-type]" in one for one in found), found
