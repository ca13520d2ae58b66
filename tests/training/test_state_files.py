"""States on the disk that were cut or changed: each is noticed, and the one before is used."""

import random

import pytest
from command import invoke
from going_on import ALONE, EVERY, interrupt
from spoil import filled, flipped, flipped_early, truncated

from metapl.training import keeper, loop, state_files

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SPOILED = 520


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was stopped with its last two states."""
    folder, see = tmp_path_factory.mktemp("cut") / "run", keeper.Keeper.see

    def stopping(self, member, event):
        see(self, member, event)
        self._settle()
        if isinstance(event, loop.Stepped) and event[:2] == ("mpl", 3):
            interrupt()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper.Keeper, "see", stopping)
        assert invoke("train", *ALONE, *EVERY, "--out", folder).code == 130
    return folder


def test_states_that_were_cut_or_changed(run, caplog):
    last, before = state_files.states(run)
    content, draw = last.read_bytes(), random.Random(0)
    noticed = 0
    try:
        while noticed < SPOILED:
            spoiled = draw.choice((truncated, flipped, flipped_early, filled))(content, draw)
            if spoiled == content:
                continue
            last.write_bytes(spoiled)
            caplog.clear()
            assert state_files.newest(run).step == 2
            (said,) = caplog.messages
            assert said.startswith(f"{last} cannot be read (")
            assert said.endswith("; the one before it is used")
            noticed += 1
    finally:
        last.write_bytes(content)
    assert state_files.newest(run).step == 3
    assert state_files.steps_of(before) == 2


def test_where_no_state_can_be_read_the_run_begins_again(run, caplog):
    kept = {path: path.read_bytes() for path in state_files.states(run)}
    try:
        for path in kept:
            path.write_bytes(b"")
        assert state_files.newest(run) is None
        assert len(caplog.messages) == 2
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
