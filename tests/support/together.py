"""Processes that train together over gloo, as forks of this one: they need not import anything again."""

import datetime
import multiprocessing
import tempfile
import traceback
import warnings
from pathlib import Path

import torch
import torch.distributed as dist

from metapl.core.collectives import Processes


def gloo(rank, count, place):
    """The processes that meet by a file in a folder."""
    store = dist.FileStore(str(Path(place) / "store"), count)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=datetime.timedelta(seconds=60))

    def reduce(flat):
        dist.all_reduce(flat)
        return flat

    return Processes(rank, count, reduce)


def _one(fn, rank, count, place):
    torch.set_num_threads(1)  # a fork of a process with more has lost the others
    try:
        found = fn(gloo(rank, count, place))
    except BaseException as error:
        (Path(place) / f"{rank}.error").write_text(traceback.format_exc(), encoding="utf-8")
        found = error
    torch.save(found, Path(place) / f"{rank}.pt")
    if dist.is_initialized() and not isinstance(found, BaseException):
        dist.destroy_process_group()


def together(count, fn):
    """`fn(processes)` by each of so many processes, and what each returns; the first error of any of them is raised."""
    with tempfile.TemporaryDirectory() as place:
        fork = multiprocessing.get_context("fork")
        running = [fork.Process(target=_one, args=(fn, rank, count, place)) for rank in range(count)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads, and a fork has none
            for one in running:
                one.start()
        for one in running:
            one.join(120)
            if one.is_alive():
                one.kill()
                raise TimeoutError("a process does not end")
        found = [torch.load(Path(place) / f"{rank}.pt", weights_only=False) for rank in range(count)]
        errors = [one for one in found if isinstance(one, BaseException)]
        if errors:
            for said in sorted(Path(place).glob("*.error")):
                print(said.name, said.read_text(encoding="utf-8"))  # noqa: T201 - pytest shows it
            raise next((one for one in errors if type(one) is not RuntimeError), errors[0])  # others lost it
        return found
