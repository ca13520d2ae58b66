"""Files that a reader can take in at once."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST = {"metapl": 250, "cli": 250, "models": 250, "benchmarks": 250, "examples": 80, "tests": 300}
"""Lines of a file, by the folder that it is in."""


@pytest.mark.parametrize("folder", MOST)
def test_no_file_is_long(folder):
    lines = {path.relative_to(ROOT): path.read_text("utf-8").count("\n") for path in (ROOT / folder).rglob("*.py")}
    assert lines
    assert {str(path): count for path, count in lines.items() if count > MOST[folder]} == {}
