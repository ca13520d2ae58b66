"""Where a run is logged: fakes in place of the packages, and the real TensorBoard where it is installed."""

import json
import math
import sys
import types
from dataclasses import asdict

import pytest

from metapl.registry.errors import InputError
from metapl.training import loggers
from metapl.training.config import TrainConfig

LINES = [
    {
        "phase": "mpl",
        "step": 50,
        "metrics": {"student": 0.5, "feedback": 0.25},
        "validation": {"ema": {"top1": 0.75}},
        "images_per_second": 1000.0,
    },
    {"phase": "finetune", "step": 3, "metrics": {"supervised": math.nan}, "validation": {}},
]
SCALARS = [
    ("mpl/metrics/student", 0.5, 50),
    ("mpl/metrics/feedback", 0.25, 50),
    ("mpl/validation/ema/top1", 0.75, 50),
    ("mpl/images_per_second", 1000.0, 50),
    ("finetune/metrics/supervised", math.nan, 3),
]


def config(log):
    return TrainConfig(log=log, seed=7)


def write(log, folder):
    """Log the lines to everything that is asked for."""
    started = loggers.start(config(log), folder)
    for line in LINES:
        for one in started:
            one.write(line)
    for one in started:
        one.close()


def same(found, expected):
    """Equal, where NaN equals NaN."""
    return len(found) == len(expected) and all(
        a == b or (a != a and b != b)  # noqa: PLR0124
        for one, other in zip(found, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture
def board(monkeypatch):
    """A module in place of TensorBoard's, which notes what is asked of it."""
    module = types.ModuleType("torch.utils.tensorboard")
    module.folders, module.scalars, module.done = [], [], []

    class SummaryWriter:
        def __init__(self, folder):
            module.folders.append(folder)

        def add_scalar(self, name, value, step):
            assert not module.done
            module.scalars.append((name, value, step))

        def flush(self):
            pass

        def close(self):
            module.done.append(True)

    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return module


@pytest.fixture
def track(monkeypatch):
    """A module in place of trackio, which notes what is asked of it."""
    module = types.ModuleType("trackio")
    module.runs, module.lines, module.done = [], [], []

    def log(metrics, step=None):
        assert module.runs
        assert not module.done
        module.lines.append((metrics, step))

    module.init = lambda **given: module.runs.append(given)
    module.log = log
    module.finish = lambda: module.done.append(True)
    monkeypatch.setitem(sys.modules, "trackio", module)
    return module


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------- what is written


def test_the_file_is_always_written(tmp_path):
    write("", tmp_path)
    assert lines_of(tmp_path) == [LINES[0], {**LINES[1], "metrics": {"supervised": None}}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard(tmp_path, board):
    write("tensorboard", tmp_path)
    assert board.folders == [str(tmp_path / "tensorboard")]
    assert same(board.scalars, SCALARS)
    assert board.done == [True]
    assert len(lines_of(tmp_path)) == 2


def test_trackio(tmp_path, track, monkeypatch):
    """The run is called as its folder is, also from within it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write("trackio", folder.relative_to(folder))
    assert track.runs == [{"project": "metapl", "name": "mine", "config": asdict(config("trackio"))}]
    assert same([(name, value, step) for line, step in track.lines for name, value in line.items()], SCALARS)
    assert [step for _, step in track.lines] == [50, 3]
    assert track.done == [True]


@pytest.mark.parametrize("log", ["tensorboard,trackio", " trackio , tensorboard,", "trackio,tensorboard,trackio"])
def test_both(tmp_path, board, track, log):
    """In any order, and once each."""
    write(log, tmp_path)
    assert len(board.folders) == len(track.runs) == 1
    assert same(board.scalars, SCALARS)
    assert len(track.lines) == len(lines_of(tmp_path)) == 2


def test_the_real_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    write("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = [(name, event.value, event.step) for name in events.Tags()["scalars"] for event in events.Scalars(name)]
    assert same(sorted(found), sorted(SCALARS))


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", loggers.LOGGERS)
def test_a_package_that_is_missing(tmp_path, monkeypatch, name):
    """One line with the remedy, before any file is opened."""
    for module in (name, loggers.MODULES[name]):
        monkeypatch.setitem(sys.modules, module, None)
    for call in (lambda: loggers.require(config(name)), lambda: loggers.start(config(name), tmp_path)):
        with pytest.raises(InputError, match=rf"^log = {name} needs a package .*: pip install 'metapl\[{name}\]'") as e:
            call()
        assert "\n" not in str(e.value)
    assert list(tmp_path.iterdir()) == []


def test_a_logger_that_does_not_exist(tmp_path, board):
    with pytest.raises(InputError, match="unknown log 'tensorbord': did you mean 'tensorboard'"):
        loggers.start(config("tensorboard,tensorbord"), tmp_path)
    assert not board.folders


def test_what_is_asked_for(board, track):
    assert loggers.require(config("")) == []
    assert loggers.require(config("trackio, tensorboard")) == ["trackio", "tensorboard"]


def test_every_logger_says_what_it_imports():
    assert set(loggers.LOGGERS) == set(loggers.MODULES)
