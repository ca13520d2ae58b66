"""Standard output that is closed, full or gone: one line, the exit code of any other program, and results that stay."""

import errno
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import metapl
from metapl.cli import main as command
from metapl.cli.streams import OUTPUT, PIPE_CLOSED

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

NOWHERE = "metapl: standard output cannot be written"


def shell(line, **more):
    """A line of bash, with "$@" for the command, in a locale without UTF-8 where `more` says so."""
    start = [sys.executable, "-c", "from metapl.cli.main import main; main()"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **more}
    return subprocess.run(
        ["bash", "-c", line, "metapl", *start],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "code", "err"),
    [
        ('"$@" --version > /dev/full', 2, NOWHERE + " (No space left on device)"),
        ('"$@" --help > /dev/full', 2, NOWHERE + " (No space left on device)"),
        ('"$@" --version >&-', 2, NOWHERE + " (Bad file descriptor)"),
        pytest.param('"$@" data list > /dev/full', 2, NOWHERE + " (No space left on device)", marks=pytest.mark.slow),
        ('set -o pipefail; { sleep 0.1; "$@" --version; } | exec true', PIPE_CLOSED, ""),
        ('"$@" train --nope > /dev/full', 2, "metapl: No such option: --nope"),
        ('"$@" train --nope 2>&-', 2, ""),
        ('"$@" train --nope 2> /dev/full', 2, ""),
        ('"$@" --version <&- >&- 2>&-', 2, ""),
    ],
)
def test_an_output_that_takes_nothing(line, code, err):
    found = shell(line)
    assert (found.returncode, found.stdout) == (code, "")
    assert found.stderr.startswith(err)
    assert found.stderr.count("\n") == bool(err)


class Gone(io.TextIOWrapper):
    """A stream that fails after so many writes, as the system says it."""

    def __init__(self, number, after):
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.number, self.left = number, after

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EPIPE, PIPE_CLOSED), (errno.EIO, 2), (errno.ENOSPC, 2)],
    ids=["pipe", "terminal", "disk"],
)
def test_a_run_ends_as_it_would_have(tmp_path, monkeypatch, capsys, number, code):
    args = ["--data", "moons:points=60", "--steps", "4", "--no-baselines", "--finetune-steps", "2", "--batch", "8"]
    monkeypatch.setattr(sys, "argv", ["metapl", "train", *args, "--out", str(tmp_path / "run")])
    monkeypatch.setattr(sys, "stdout", Gone(number, after=3))
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == code
    err = capsys.readouterr().err
    assert err == "" if code == PIPE_CLOSED else err.startswith(f"{NOWHERE} ({os.strerror(number)})")
    assert {"summary.json", "metrics.jsonl", "plots"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_the_next_command_may_write_again(monkeypatch, capsys):
    OUTPUT.lost = OSError(errno.EPIPE, "gone")
    monkeypatch.setattr(sys, "argv", ["metapl", "data", "list"])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 0
    assert "digits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/secret/x"), "metapl: /secret/x: Permission denied: see"),
        (MemoryError(), "metapl: there is not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "metapl: there is not"),
    ],
)
def test_what_no_verb_expects_is_one_line(monkeypatch, capsys, error, said):
    def fail(**_):
        raise error

    monkeypatch.setattr(sys, "argv", ["metapl"])
    monkeypatch.setattr(command, "app", fail)
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(said)


def test_a_defect_is_not_hidden(monkeypatch):
    def fail(**_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(command, "app", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        command.main()


@pytest.mark.slow
def test_letters_that_the_locale_lacks(tmp_path):
    """Of what a study prints and writes, "−" and "±" are not in ASCII, nor is a folder's name."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    flags = "--method mpl --guide none --data moons:points=60 --steps 2 --finetune-steps 1 --batch 8 --validation 10"
    found = shell(f'cd {tmp_path}; "$@" ablate --vary "grad=none exact" --seeds 2 {flags} --out café', **ascii_only)
    assert (found.returncode, found.stderr) == (0, "")
    assert "\\u2212" in found.stdout
    (table,) = tmp_path.glob("*/table.md")
    assert "−" in table.read_text(encoding="utf-8")


def test_the_sources_hide_an_installed_package(tmp_path):
    """`cli/` stands elsewhere in a checkout; `-S` leaves out what makes an editable install find it."""
    shutil.copytree(Path(metapl.__file__).parent, tmp_path / "metapl", ignore=shutil.ignore_patterns("__pycache__"))
    found = subprocess.run(
        [sys.executable, "-S", "-m", "metapl"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    if (tmp_path / "metapl" / "cli").exists():
        pytest.skip("the package is installed, not in its sources")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("metapl: the sources in the current folder hide")
    assert found.stderr.count("\n") == 1
