"""What the environment says of several processes."""

import pytest

from metapl.registry import launch
from metapl.registry.errors import InputError

READ = {"WORLD_SIZE": launch.processes, "RANK": launch.rank, "TORCHELASTIC_RESTART_COUNT": launch.restarts}


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in READ:
        monkeypatch.delenv(name, raising=False)
    assert (launch.processes(), launch.rank(), launch.restarts()) == (1, 0, 0)


@pytest.mark.parametrize("name", READ)
def test_what_it_sets_is_read(monkeypatch, name):
    monkeypatch.setenv(name, "3")
    assert READ[name]() == 3


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in READ for text in ("two", "", "-1", "1.5", "²")])
def test_what_is_no_count_is_one_line(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    with pytest.raises(InputError, match=f"^the environment has {name} = '{text}', which must be a whole number"):
        READ[name]()


def test_no_process_at_all_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "0")
    with pytest.raises(InputError, match="from 1 on: unset it"):
        launch.processes()
