"""What is made once for all processes of a test session."""

import fcntl
import os


def once(factory, name, make):
    """A folder of that name which `make(folder)` has filled; who asks first makes it, and the others wait.

    `factory` is pytest's `tmp_path_factory`. The folder is to be looked at only.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder.with_name(f"{name}.done")
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
