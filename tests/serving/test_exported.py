"""An exported folder read again: the network bit for bit, or one line; and nothing of a stranger's is run."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from command import invoke
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from metapl import models
from metapl.evaluation import metrics
from metapl.registry.errors import InputError
from metapl.serving import export, exported
from metapl.training import fitting, run_files, run_folder

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    flags = (
        "--grad",
        "exact",
        "--steps",
        "4",
        "--finetune-steps",
        "2",
        "--no-baselines",
        "--model",
        "convnet:width=4,depth=2",
    )
    assert invoke("train", *flags, "--device", "cpu", "--out", folder).code == 0
    return folder


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "m"
    export.export(run, folder)
    return folder


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "m")


def change(folder, **values):
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**found, **values}))


def test_the_network_is_that_of_the_run(run, made):
    found, serving = exported.load(made), run_folder.serve(run, "", "cpu")
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found.network(x), metrics.predict(serving.model, *serving.network, [x]))
    assert found.form == serving.form
    assert not found.network.training


def card_code(folder):
    return (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]


def run_code(folder):
    code = card_code(folder).replace("example.png", "example.npy")
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_code_of_the_card(copy):
    np.save(copy / "example.npy", np.zeros((1, 8, 8), dtype=np.uint8))
    assert (run_code(copy).returncode, "trust_code" in card_code(copy)) == (0, False)
    change(copy, model="module:subprocess:call", shape=["touch", str(copy / "ran")])
    assert "InputError: config.json: shape[0]" in run_code(copy).stderr
    change(copy, shape=[1, 8, 8])
    assert "InputError: config.json: model = 'module:subprocess:call' imports subprocess" in run_code(copy).stderr
    assert not (copy / "ran").exists()


HOSTILE = {
    "code": ({"model": "module:evil:net"}, "imports evil and calls its net: read that code, and give --trust-code"),
    "timm": ({"model": "timm:hf-hub:evil/net"}, "has timm make a network"),
    "another model": ({"model": "mlp"}, "has other tensors than its weights"),
    "a huge one": ({"model": "mlp:width=9999999999"}, "width is beyond their size"),
    "no text": ({"model": 5}, "model is 5"),
    "another file": ({"weights": "../../etc/passwd"}, "weights is .* must be one of model.safetensors"),
    "a network": ({"network": "x"}, "network is"),
    "a shape": ({"shape": ["touch", "x"]}, 'shape\\[0\\] is "touch"'),
    "classes": ({"classes": ["a"]}, "has other tensors than its weights"),
    "details": ({"details": {"mean": [[[[1]]]], "std": [1]}}, "mean\\[0\\] is"),
    "versions": ({"versions": []}, "a table of names"),
    "a checksum": ({"sha256": "0" * 64}, "SHA-256 is not that in config.json"),
    "more": ({"more": 1}, "has 'more'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder(copy, name):
    values, match = HOSTILE[name]
    change(copy, **values)
    with pytest.raises(InputError, match=match) as caught:
        exported.load(copy)
    assert "\n" not in str(caught.value)


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_every_flipped_bit_is_seen(made, place, bit):
    content = bytearray((made / "model.safetensors").read_bytes())
    other = made.parent / "flipped"
    shutil.copytree(made, other, dirs_exist_ok=True)
    content[place % len(content)] ^= 1 << bit
    (other / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="SHA-256"):
        exported.load(other)


def test_weights_of_another_type_are_no_traceback(copy):
    change(copy, sha256="")
    state = load_file(copy / "model.safetensors")
    save_file({name: value.double() for name, value in state.items()}, copy / "model.safetensors")
    with pytest.raises(InputError, match="other tensors than its weights"):
        exported.load(copy)


# ---------------------------------------------------------------- forms of all kinds


FORMS = {
    "images": {"mean": [0.1], "std": [0.3], "mirror": False},
    "arrays": {"mean": [[[0.0] * 8] * 8], "std": 2},
}


@pytest.mark.parametrize("kind", FORMS)
def test_forms(kind):
    found = {"kind": kind, "shape": [1, 8, 8], "classes": ["a", "a"], "details": FORMS[kind]}
    assert run_files.form(found, "f") == (kind, (1, 8, 8), ("a", "a"), FORMS[kind])
    for wrong in ({}, [], {"mean": [0.1]}, {**FORMS[kind], "x": 1}, {**FORMS[kind], "mean": [[1.0]]}):
        with pytest.raises(InputError, match=r"^f: details"):
            run_files.form({**found, "details": wrong}, "f")


NUMBER = {"name": "n", "kind": "number", "mean": 0.5, "std": 2.0, "missing": True}
CATEGORY = {"name": "c", "kind": "category", "categories": ["x", "y", ""]}


def test_columns():
    found = {"kind": "table", "shape": [5], "classes": ["a"], "details": {"columns": [NUMBER, CATEGORY], "label": "l"}}
    assert run_files.form(found, "f").details == found["details"]
    for column in (
        {**NUMBER, "std": -1.0},
        {**NUMBER, "std": 0.0, "missing": False},
        {**NUMBER, "missing": 1},
        {**NUMBER, "mean": float("inf")},
        {**NUMBER, "kind": "other"},
        {**CATEGORY, "categories": []},
        {**CATEGORY, "categories": [1]},
        {"name": "n", "kind": "number"},
        "n",
    ):
        with pytest.raises(InputError, match=r"^f: details: columns\[1\]"):
            run_files.form({**found, "details": {"columns": [NUMBER, column], "label": "l"}}, "f")
    with pytest.raises(InputError, match=r"^f: details: columns make 5 features, and the shape is \[4\]$"):
        run_files.form({**found, "shape": [4]}, "f")


def test_a_network_of_terabytes_is_compared_without_them(monkeypatch):
    monkeypatch.setattr(fitting, "LARGEST", 10**7)
    state = models.build("mlp:width=3,depth=2", (1, 8, 8), 10).state_dict()
    form = run_files.form({"kind": "images", "shape": [1, 8, 8], "classes": ["a"], "details": FORMS["images"]}, "f")
    with pytest.raises(InputError, match=r"^w: model .* has other tensors than its weights"):
        fitting.require("mlp:width=1000000,depth=2", form, state, "w")
