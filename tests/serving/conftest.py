"""Runs of a few steps, trained once a file."""

import exporting
import pytest
from predicting import rows_of, run_of


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("digits") / "run")


@pytest.fixture(scope="module")
def moons(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("moons") / "run", data="moons:points=200", labels=4)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    lines = [f"{a},{b},{label}" for (a, b), label in zip(*rows_of(90), strict=True)]
    (folder / "train.csv").write_text("\n".join(["size,weight,species", *lines]) + "\n")
    # Enough steps for some to be predicted right and some wrong.
    return run_of(folder / "run", data=str(folder / "train.csv"), steps=30, labels=30)


@pytest.fixture(scope="module")
def convnet(tmp_path_factory):
    return exporting.run_of(
        tmp_path_factory.mktemp("convnet") / "run", model=exporting.CONVNET, teacher_model="mlp:width=8", baselines=True
    )


@pytest.fixture
def run(request):
    """A run of the kind that a test is parametrised by."""
    return request.getfixturevalue(request.param)
