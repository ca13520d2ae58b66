"""Graphs of an exported network, which need neither metapl nor its code."""

import math
import os
import sys

import numpy as np
import pytest
import torch
from exporting import calibrated, config_of, run_of
from torch import nn

import metapl
from metapl.data.formats.arrays import standardised
from metapl.registry.errors import InputError
from metapl.serving import export
from metapl.training import run_folder

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Loop(nn.Module):
    """Looks at its data, which no graph can, nor the derivatives of a student."""

    def __init__(self, shape, classes):
        super().__init__()
        self.last = nn.Linear(math.prod(shape), classes)

    def forward(self, x):
        return self.last(x.flatten(1) * (2.0 if bool((x > 0).any()) else 1.0))


@pytest.fixture
def outside(monkeypatch):
    """A module of one's own, `outside:Loop`."""
    monkeypatch.setitem(sys.modules, "outside", sys.modules[__name__])


def examples(run, count):
    """What the files hold, and what the network sees of it, by hand."""
    form = run_folder.serve(run, device="cpu").form
    if form.kind == "images":
        levels = np.random.default_rng(0).integers(0, 256, (count, *form.shape))
        seen = (levels / 255 - form.details["mean"][0]) / form.details["std"][0]
        return torch.tensor(levels, dtype=torch.float32), torch.tensor(seen, dtype=torch.float32)
    x = draw(count, *form.shape)
    seen = standardised(x.numpy(), form.details["mean"], form.details["std"]) if form.kind == "arrays" else x
    return x, seen


@pytest.mark.slow
@pytest.mark.parametrize("run", ["convnet", "table", "moons"], indirect=True)
def test_torch_export(run, tmp_path):
    """Of any number of examples, standardised inside, without a path of this machine in it."""
    export.export(run, tmp_path / "out", "torch-export")
    network = torch.export.load(tmp_path / "out" / "model.pt2").module()
    raw, seen = examples(run, 6)
    expected = calibrated(run, seen)
    for count in (1, 2, 5, 6):
        found = network(raw[:count]).detach()
        assert (found - expected[:count]).abs().max() <= 1e-6
    described = config_of(tmp_path / "out")["graph"]
    assert described["file"] == "model.pt2"
    assert described["input"]["shape"] == ["batch", *raw.shape[1:]]
    assert described["output"]["shape"] == ["batch", expected.shape[1]]
    assert os.fsencode(os.path.dirname(metapl.__file__)) not in (tmp_path / "out" / "model.pt2").read_bytes()


@pytest.mark.parametrize("run", ["convnet", "table", "moons"], indirect=True)
def test_onnx(run, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra export")
    runtime = pytest.importorskip("onnxruntime", reason="runs the graph")
    export.export(run, tmp_path / "out", "onnx")
    assert sorted(path.name for path in (tmp_path / "out").iterdir())[2:] == ["model.onnx", "model.safetensors"]
    session = runtime.InferenceSession(tmp_path / "out" / "model.onnx")
    raw, seen = examples(run, 6)
    expected = calibrated(run, seen).numpy()
    for count in (1, 5, 6):
        (found,) = session.run(["logits"], {"x": raw[:count].numpy()})
        np.testing.assert_allclose(found, expected[:count], rtol=0, atol=2e-6)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_onnx_without_its_packages(convnet, tmp_path, monkeypatch, package):
    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    with pytest.raises(InputError, match=rf"--format onnx needs a package \(.*{package}.*\): pip install 'metapl\[exp"):
        export.export(convnet, tmp_path / "new" / "out", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_is_no_graph(tmp_path, outside):
    run = run_of(tmp_path / "run", model="module:outside:Loop", method="supervised")
    with pytest.raises(InputError, match=r"'module:outside:Loop' cannot be written as a graph .* --format safetensors"):
        export.export(run, tmp_path / "out", "torch-export", trust_code=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    export.export(run, tmp_path / "out", trust_code=True)
