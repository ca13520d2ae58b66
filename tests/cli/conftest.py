"""Runs that were never stopped, and ways to stop others."""

import pytest
from command import invoke
from going_on import contents

from metapl.data.sources import find
from metapl.training import keeper, loop


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """`whole(*args)`: the files of a run that was never stopped; the same arguments are trained once."""
    known = {}

    def find(*args):
        if args not in known:
            folder = tmp_path_factory.mktemp("whole") / "run"
            outcome = invoke("train", *args, "--out", folder)
            assert (outcome.code, outcome.err) == (0, "")
            known[args] = contents(folder)
        return known[args]

    return find


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
def nowhere(tmp_path, monkeypatch):
    """Nothing of this machine is found."""
    monkeypatch.delenv(find.VARIABLE, raising=False)
    monkeypatch.setattr(find, "SYSTEM", tmp_path / "system")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)
