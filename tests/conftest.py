"""Settings for the whole suite."""

import gc
import os

import pytest
import torch

from metapl.core import torch_private

# The networks are tiny and pytest-xdist already uses every core; more threads would only wait for one another.
torch.set_num_threads(1)

# Some tests take `torch.func.jvp` itself, whose first use warns, and warnings are errors here.
torch_private.load_forward_formulas()

os.fsync = lambda place: None  # no test pulls the plug out, and waiting for disks is most of a tiny run

gc.disable()  # while tests are collected: there are thousands of them, and none is garbage


def pytest_collection_finish():
    """What is there by now stays, and need not be looked through again."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """The tests of a file run in one process, so that what they share is made once."""
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 - not there without pytest-xdist

    return LoadFileScheduling(config, log)
