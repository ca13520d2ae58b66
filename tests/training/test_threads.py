"""How many threads torch takes: one for small networks on a CPU, unless the environment says otherwise."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from metapl.core import tree
from metapl.training import threads
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare

GIVEN = {"data": "moons:points=200", "model": "mlp:width=4,depth=1", "device": "cpu"}
SIZE = 2 * 4 + 4 + 4 * 2 + 2
"""Of this network: two numbers to four, these to two classes."""

ONE = [1, ("blas", 1)]
"""What is set where one thread is enough."""


@pytest.fixture
def taken(monkeypatch):
    """The numbers of threads that torch and BLAS are told to take."""
    found = []
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    monkeypatch.setattr(threads, "threadpool_limits", lambda count, user_api: found.append((user_api, count)))
    for name in (*threads.NAMED, "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return found


def prepared(**options):
    return prepare(TrainConfig(**{**GIVEN, **options}))


@pytest.mark.parametrize(("most", "together", "expected"), [(SIZE, 1, ONE), (SIZE - 1, 1, []), (SIZE, 2, [])])
def test_one_thread_is_enough_for_so_many_numbers_in_all_runs_together(taken, monkeypatch, most, together, expected):
    given = prepared()
    assert tree.size(given.models.student.init(given.keys.root)) == SIZE
    monkeypatch.setattr(threads, "SMALL", most)
    threads.settle(given, together)
    assert taken == expected


LARGE = "mlp:width=1000,depth=2"


@pytest.mark.parametrize(("student", "teacher"), [(GIVEN["model"], LARGE), (LARGE, GIVEN["model"])])
def test_student_and_teacher_count(taken, student, teacher):
    threads.settle(prepared(grad="exact", model=student, teacher_model=teacher))
    assert taken == []


def test_numbers_that_are_not_trained_count_too(taken):
    threads.settle(prepared(model=LARGE, freeze="!5", method="supervised"))
    assert taken == []


@pytest.mark.parametrize(("width", "expected"), [(300, ONE), (450, [])])
def test_the_bound_is_between_an_mlp_of_112_810_numbers_and_one_of_236_710(taken, width, expected):
    threads.settle(prepared(data="digits", model=f"mlp:width={width}"))
    assert taken == expected


@pytest.mark.parametrize("model", ["convnet:width=1", "vit:width=8,depth=1,heads=2,patch=2", "module:torch.nn:Linear"])
def test_networks_that_take_a_weight_many_times_have_all_threads(taken, model):
    given = prepared(data="digits")
    threads.settle(given._replace(config=replace(given.config, model=model)))
    assert taken == []


def test_several_processes_keep_what_they_all_have(taken, monkeypatch):
    """A sum has other last digits with other threads, by which they would take their data for different."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    threads.settle(prepared())
    assert taken == []


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
def test_the_environment_has_the_last_word(taken, monkeypatch, name):
    monkeypatch.setenv(name, "2")
    threads.settle(prepared())
    assert taken == []


def test_a_gpu_has_no_such_threads(taken):
    given = prepared()
    data = given.data._replace(y=given.data.y.to("meta"))
    threads.settle(given._replace(data=data))
    assert taken == []


def test_the_default_run_takes_one(taken):
    threads.settle(prepare(TrainConfig(device="cpu")))
    assert taken == ONE


@pytest.mark.parametrize(
    ("device", "count", "expected"),
    [("cpu", 1, "cpu with one thread"), ("cpu", 3, "cpu with 3 threads"), ("cuda:1", 3, "cuda:1")],
)
def test_they_are_told_with_the_device(monkeypatch, device, count, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    assert threads.written(torch.device(device)) == expected


def test_both_blas_of_the_panel_take_one():
    """In a process of its own, since it is for good."""
    code = (
        "import torch; from threadpoolctl import threadpool_info\n"
        "from metapl.training import threads\n"
        "from metapl.training.config import TrainConfig\n"
        "from metapl.training.experiment import prepare\n"
        f"threads.settle(prepare(TrainConfig(**{GIVEN})))\n"
        "import sklearn.decomposition\n"
        "blas = [one['num_threads'] for one in threadpool_info() if one['user_api'] == 'blas']\n"
        "print(torch.get_num_threads(), *blas)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in (*threads.NAMED, "WORLD_SIZE")}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    torch_takes, *blas_take = said.stdout.split()
    assert torch_takes == "1"
    assert blas_take  # one or two, by how numpy and scipy were built
    assert set(blas_take) == {"1"}
