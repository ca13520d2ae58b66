"""Runs that were never stopped, and ways to stop others."""

import pytest
from command import invoke
from going_on import ALONE, contents, interrupt

from metapl.data.sources import find
from metapl.training import keeper, loop


@pytest.fixture(scope="session")
def train(tmp_path_factory):
    """`train(*args)`: the folder of a finished run, to be looked at only; the same arguments are trained once."""
    finished = {}

    def trained(*args):
        if args not in finished:
            folder = tmp_path_factory.mktemp("run") / "out"
            outcome = invoke("train", *args, "--out", folder)
            assert (outcome.code, outcome.err) == (0, "")
            finished[args] = folder
        return finished[args]

    return trained


@pytest.fixture(scope="session")
def whole(train):
    """`whole(*args)`: the files of a run that was never stopped."""
    return lambda *args: contents(train(*args))


@pytest.fixture
def stop(monkeypatch):
    """`stop(phase, step, act)`: have something happen after a step, once."""
    see = keeper.Keeper.see

    def at(phase, step, act):
        waiting = [(phase, step)]

        def seen(self, member, event):
            see(self, member, event)
            if isinstance(event, loop.Stepped) and event[:2] in waiting:
                waiting.remove(event[:2])
                act()

        monkeypatch.setattr(keeper.Keeper, "see", seen)

    return at


@pytest.fixture
def cut(stop, tmp_path):
    """A run that was stopped in the middle."""
    stop("mpl", 2, interrupt)
    assert invoke("train", *ALONE, "--out", tmp_path / "run").code == 130
    return tmp_path / "run"


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Nothing of this machine is found."""
    monkeypatch.delenv(find.VARIABLE, raising=False)
    monkeypatch.setattr(find, "SYSTEM", tmp_path / "system")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)
