"""The command line: its lists, its help, and what it does without arguments."""

import json
from dataclasses import fields

import pytest
from command import invoke
from tiny_runs import python

from metapl import __version__
from metapl.estimators import ESTIMATORS
from metapl.registry import notation
from metapl.training.config import TrainConfig, flag

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


# ---------------------------------------------------------------- help and lists


def test_grads_lists_every_estimator(tmp_path):
    outcome = invoke("grads", "--json", tmp_path / "grads.json")
    assert (outcome.code, outcome.err) == (0, "")
    rows = json.loads((tmp_path / "grads.json").read_text())
    assert [row["name"] for row in rows] == list(ESTIMATORS)
    for row in rows:
        build = ESTIMATORS[row["name"]]
        assert row["claim"] == build().claim
        assert row["cost"] == build().cost
        assert row["labels"] == ", ".join(build().targets)
        assert row["about"].endswith(".")
        assert notation.parse(row["signature"], ESTIMATORS, "estimator") == (row["name"], notation.options(build))
        assert row["name"] in outcome.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--help",), ["train", "eval", "grads"]),
        (("train", "--help"), ["--out", "--config", "which must not exist", "TOML file"]),
        (("eval", "--help"), ["--part", "--json"]),
        (("grads", "--help"), ["--json"]),
        (("--version",), [__version__]),
    ],
)
def test_help(args, words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    outcome = invoke(*args)
    assert (outcome.code, outcome.err) == (0, "")
    assert all(word in outcome.out for word in words)


def test_every_field_is_a_flag_with_its_help_and_default(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    lines = invoke("train", "--help").out.splitlines()
    for field in fields(TrainConfig):
        (line,) = [line for line in lines if line.strip("│ ").startswith(f"{flag(field.name)} ")]
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        assert field.metadata["help"] in line
        assert f"[default: {'none' if default == '' else default}]" in line


def test_no_arguments_print_the_help():
    assert invoke().out.split() == invoke("--help").out.split()


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["eval", "--help"], ["train", "--lr", "nan"]])
def test_help_and_simple_errors_come_without_torch(args):
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('LOADED', 'torch' in sys.modules, 'sklearn' in sys.modules))\n"
        "from metapl.cli.main import main\n"
        "main()"
    )
    assert python(code, *args).stdout.splitlines()[-1] == "LOADED False False"
