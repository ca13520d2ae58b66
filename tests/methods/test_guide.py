"""The guide "write a method", followed in a copy of the package: one file, one line, and it trains."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "write_a_method.md"
BLOCK = re.compile(r'^```python title="fragment: (?P<title>[^"]*)"\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL)
LAST = '    "supervised": "metapl.methods.supervised:METHOD",\n'
DRIVE = """
from metapl.cli.main import app

tiny = ["--steps", "4", "--report-every", "2", "--model", "mlp:width=8,depth=1", "--device", "cpu"]
for command in (["train", "--method", "entropy", *tiny, "--out", "run"], ["eval", "run"], ["report", "run"],
                ["export", "run", "--out", "exported"], ["train", "--help"]):
    app(command, standalone_mode=False)
"""


def blocks():
    return {match["title"]: match["code"] for match in BLOCK.finditer(GUIDE.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """What the commands print, and the folder that they ran in."""
    place = tmp_path_factory.mktemp("guide")
    package = place / "package" / "metapl"
    ignored = shutil.ignore_patterns("__pycache__")
    for source, target in (("metapl", package), ("cli", package / "cli"), ("models", package / "models")):
        shutil.copytree(ROOT / source, target, ignore=ignored)
    code = blocks()
    (package / "methods" / "entropy.py").write_text(code["metapl/methods/entropy.py"], encoding="utf-8")
    registry = package / "methods" / "__init__.py"
    text = registry.read_text(encoding="utf-8")
    assert text.count(LAST) == 1
    registry.write_text(text.replace(LAST, LAST + code["the line"]), encoding="utf-8")
    start = f"import sys; sys.path.insert(0, {str(package.parent)!r})\n{DRIVE}"
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=place, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, place


def test_it_is_trained_and_evaluated_under_its_own_name(followed):
    out, place = followed
    summary = json.loads((place / "run" / "summary.json").read_text(encoding="utf-8"))
    assert list(summary["test"]) == ["logistic", "self-training", "spreading", "entropy"]
    assert out.count("entropy minimisation") == 2  # the table of train, and that of eval
    lines = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [("entropy", 2), ("entropy", 4)]
    assert set(lines[0]["metrics"]) == {"supervised", "entropy"}
    assert set(lines[0]["validation"]) == {"model", "ema"}


def test_everything_else_knows_it(followed):
    out, place = followed
    names = "mpl, reduced, uda, pseudo-labels, supervised, entropy, logistic, self-training, spreading, consensus."
    assert names in " ".join(out.replace("│", " ").split())
    page = (place / "run" / "report.html").read_text(encoding="utf-8")
    assert "Entropy minimisation on digits" in page
    assert "which keeps its predictions sharp." in page
    card = (place / "exported" / "README.md").read_text(encoding="utf-8")
    assert "By entropy minimisation, on 10 labelled examples" in card
    assert "trained on labels and for predictions of low entropy" in card
