"""`metapl export`: what is written restores the network, alone and in another place, and says what the run knows."""

import json
import math
import os
import re
import sys

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

import metapl
from metapl import methods, models
from metapl.cli.export import export as verb
from metapl.cli.train import train
from metapl.data.formats.arrays import standardised
from metapl.evaluation import metrics
from metapl.registry.errors import InputError
from metapl.serving import export, model_card
from metapl.training import checkpoint, run_folder

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

TINY = {"method": "mpl", "guide": "none", "steps": 4, "finetune_steps": 2, "baselines": False, "device": "cpu"}
CONVNET = "convnet:width=4,depth=2"
"""With BatchNorm, whose running statistics are buffers."""


def run_of(folder, **flags):
    train(out=folder, **{**TINY, **flags})
    return folder


@pytest.fixture(scope="module")
def convnet(tmp_path_factory):
    return run_of(
        tmp_path_factory.mktemp("convnet") / "run", model=CONVNET, teacher_model="mlp:width=8", baselines=True
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    lines = [f"{n % 7},{'ab'[n % 2]},{'xyz'[n % 3]}" for n in range(60)]
    (folder / "plants.csv").write_text("\n".join(["size,kind,species", *lines]) + "\n")
    return run_of(folder / "run", data=str(folder / "plants.csv"), labels=12, model="mlp:width=8")


@pytest.fixture(scope="module")
def moons(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moons") / "run"
    return run_of(folder, data="moons:points=200", labels=4, model="mlp:width=8")


@pytest.fixture
def run(request):
    """A run of the kind that a test is parametrised by."""
    return request.getfixturevalue(request.param)


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def logits_of(run, x, network=""):
    """As `metapl predict` has them, from the run itself: for what a network sees."""
    serving = run_folder.serve(run, network, "cpu", trust_code=True)
    return metrics.predict(serving.model, *serving.network, [x])


def plain(folder):
    """The network in a folder, by PyTorch and `models.build` alone."""
    config = config_of(folder)
    network = models.build(config["model"], tuple(config["shape"]), len(config["classes"]))
    network.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return network.eval()


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("network", ["", "ema", "student", "teacher", "supervised", "pseudo-labels", "uda"])
def test_a_plain_module_gives_the_same_logits(convnet, tmp_path, network):
    export.export(convnet, tmp_path / "out", network=network)
    x = draw(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(plain(tmp_path / "out")(x), logits_of(convnet, x, network))
    assert config_of(tmp_path / "out")["network"] == (network or "finetuned")


def test_tensors_have_the_names_and_numbers_of_the_state_dict(convnet, tmp_path):
    """BatchNorm's statistics are in it, and have moved."""
    export.export(convnet, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    fresh = models.build(CONVNET, (1, 8, 8), 10).state_dict()
    assert {name: value.dtype for name, value in found.items()} == {name: one.dtype for name, one in fresh.items()}
    stored = checkpoint.load_networks(convnet / run_folder.CHECKPOINT)["finetuned"]
    for name, value in {**stored.params, **stored.buffers}.items():
        assert torch.equal(found[name], value)
    assert found["1.running_mean"].abs().min() > 0
    assert found["1.num_batches_tracked"] > 0


def test_nothing_global_is_touched(convnet, tmp_path):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    export.export(convnet, tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


class Tied(nn.Module):
    """Tied weights, a buffer that is not in the state_dict, and a layer whose weights are made of others.

    There is no forward mode for the last, so it is trained by supervised learning.
    """

    def __init__(self, shape, classes, offset=0.0):
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(math.prod(shape), 6))
        self.second = nn.Linear(6, 6)
        self.third = nn.Linear(6, 6)
        self.third.weight = self.second.weight
        self.last = nn.Linear(6, classes)
        self.register_buffer("offset", torch.full((6,), offset), persistent=False)

    def forward(self, x):
        if self.training:
            self.offset += Tied.moves
        return self.last(self.third(self.second(self.first(x.flatten(1)) + self.offset).relu()))

    moves = 0.0


@pytest.fixture
def outside(monkeypatch):
    """A module of one's own, `outside:Tied`."""
    monkeypatch.setitem(sys.modules, "outside", sys.modules[__name__])
    monkeypatch.setattr(Tied, "moves", 0.0)


def test_tied_and_derived_weights(tmp_path, outside):
    run = run_of(tmp_path / "run", model="module:outside:Tied,offset=0.5", method="supervised")
    export.export(run, tmp_path / "out", trust_code=True)
    found, x = plain(tmp_path / "out"), draw(5, 1, 8, 8)
    assert found.third.weight is found.second.weight
    with torch.no_grad():
        # Not to the last bit: how a product is summed depends on where its factors lie in memory.
        torch.testing.assert_close(found(x), logits_of(run, x), rtol=1e-6, atol=1e-6)
    assert "With metapl and the code of the network" in (tmp_path / "out" / "README.md").read_text()


def test_what_the_state_dict_leaves_out_is_missed(tmp_path, outside, monkeypatch):
    monkeypatch.setattr(Tied, "moves", 1.0)
    run = run_of(tmp_path / "run", model="module:outside:Tied", method="supervised")
    with pytest.raises(InputError, match="offset of model 'module:outside:Tied' is not in its state_dict"):
        export.export(run, tmp_path / "out", trust_code=True)


def test_a_network_whose_code_has_changed(tmp_path, outside):
    run = run_of(tmp_path / "run", model="mlp:width=8")
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace('model = "mlp:width=8"', 'model = "mlp:width=9"'))
    with pytest.raises(InputError, match="model 'mlp:width=9' has other tensors than its weights"):
        export.export(run, tmp_path / "out")


def test_the_reduced_method(tmp_path):
    """Its teacher is two networks, one after the other; the first of them can be had."""
    run = run_of(tmp_path / "run", method="reduced", model="mlp:width=8")
    with pytest.raises(InputError, match=r"--network teacher of --method reduced is .* export finetuned, ema, student"):
        export.export(run, tmp_path / "out", network="teacher")
    export.export(run, tmp_path / "out", network="fixed")
    assert "By UDA ([Xie" in (tmp_path / "out" / "README.md").read_text()
    x = draw(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(plain(tmp_path / "out")(x), logits_of(run, x, "fixed"))
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace('teacher_model = ""', 'teacher_model = "mlp:width=9"'))
    with pytest.raises(InputError, match="'mlp:width=9' has other tensors"):  # the fixed teacher's, not the student's
        export.export(run, tmp_path / "other", network="fixed")


# ---------------------------------------------------------------- graphs


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
    expected = logits_of(run, seen)
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
    expected = logits_of(run, seen).numpy()
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


class Loop(nn.Module):
    """Looks at its data, which no graph can, nor the derivatives of a student."""

    def __init__(self, shape, classes):
        super().__init__()
        self.last = nn.Linear(math.prod(shape), classes)

    def forward(self, x):
        return self.last(x.flatten(1) * (2.0 if bool((x > 0).any()) else 1.0))


def test_a_network_that_is_no_graph(tmp_path, outside):
    run = run_of(tmp_path / "run", model="module:outside:Loop", method="supervised")
    with pytest.raises(InputError, match=r"'module:outside:Loop' cannot be written as a graph .* --format safetensors"):
        export.export(run, tmp_path / "out", "torch-export", trust_code=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    export.export(run, tmp_path / "out", trust_code=True)


# ---------------------------------------------------------------- the folder


def invoke(*args):
    app = typer.Typer()
    app.command()(verb)
    outcome = CliRunner().invoke(app, list(map(str, args)))
    if outcome.exception and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome


def test_the_verb(convnet, tmp_path):
    outcome = invoke(convnet, "--out", tmp_path / "new" / "out", "--network", "student")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    listed = [line.split() for line in outcome.stdout.splitlines()]
    files = sorted((tmp_path / "new" / "out").iterdir())
    assert [path.name for path in files] == ["README.md", "config.json", "model.safetensors"]
    assert listed == [[f"{path.stat().st_size:,}", "bytes", str(path)] for path in files]
    assert config_of(tmp_path / "new" / "out")["network"] == "student"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_the_configuration(convnet, tmp_path):
    export.export(convnet, tmp_path / "out")
    config = config_of(tmp_path / "out")
    form = json.loads((convnet / "data.json").read_text())
    assert {name: config[name] for name in form} == form
    assert [config["model"], config["network"], config["graph"]] == [CONVNET, "finetuned", None]
    assert [config["metapl"], config["versions"]["torch"]] == [metapl.__version__, torch.__version__]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere", "--out", "out"), "nowhere is not a run"),
        (("RUN", "--out", "there"), "--out there exists already"),
        (("RUN", "--out", "file/out"), "--out file/out cannot be written"),
        (("RUN", "--out", "out", "--network", "emma"), "unknown network 'emma': did you mean 'ema'"),
        (("RUN", "--out", "out", "--format", "onyx"), "unknown format 'onyx': did you mean 'onnx'"),
    ],
    ids=str,
)
def test_bad_input(convnet, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InputError, match=message) as caught:
        invoke(*(convnet if arg == "RUN" else arg for arg in args))
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "there"]


@pytest.mark.parametrize("name", ["summary.json", "split.json", "confusion.json", "data.json"])
def test_a_run_that_is_incomplete(convnet, tmp_path, name):
    copy = tmp_path / "copy"
    for path in convnet.rglob("*"):
        if path.is_file() and path.name != name:
            checkpoint.write(copy / path.relative_to(convnet), lambda new, old=path: new.write_bytes(old.read_bytes()))
    with pytest.raises(InputError, match=r"is the run complete\?"):
        export.export(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- the model card


def example_file(kind, folder):
    if kind == "images":
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "example.png")
        return
    if kind == "table":
        (folder / "example.csv").write_text("kind,size\na,3\nb,1\n")
        return
    np.save(folder / "example.npy", np.ones((2, 2)))


@pytest.mark.parametrize("run", ["convnet", "table", "moons"], indirect=True)
def test_the_code_of_the_card_runs_where_the_folder_was_moved(run, tmp_path, monkeypatch):
    """Without the run; and it says what `metapl predict` says."""
    serving = run_folder.serve(run, device="cpu")
    export.export(run, tmp_path / "out", "torch-export")
    (tmp_path / "out").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    example_file(serving.form.kind, tmp_path / "moved")
    first, second = re.findall(r"^```python\n(.*?)^```$", (tmp_path / "moved" / "README.md").read_text(), re.M | re.S)
    names = {}
    exec(first, names)
    found = names["probabilities"].detach()
    expected = torch.softmax(logits_of(run, names["x"]), -1)
    assert torch.equal(found, expected)
    raw = torch.arange(64.0).reshape(1, 1, 8, 8) if serving.form.kind == "images" else torch.ones(2, 2)
    given = {"x": names["x"] if serving.form.kind == "table" else raw}
    exec(second, given)
    torch.testing.assert_close(given["logits"].detach().softmax(-1), expected, rtol=0, atol=1e-6)


def front_of(text):
    yaml = pytest.importorskip("yaml", reason="reads the front matter")
    return yaml.safe_load(text.split("---\n")[1])


@pytest.mark.parametrize("network", ["finetuned", "uda"])
def test_the_front_matter(convnet, tmp_path, network):
    export.export(convnet, tmp_path / 'my "model": 1', network=network)
    front = front_of((tmp_path / 'my "model": 1' / "README.md").read_text())
    assert set(front) == {"library_name", "pipeline_tag", "tags", "model-index"}
    (entry,) = front["model-index"]
    (result,) = entry["results"]
    assert [entry["name"], front["pipeline_tag"]] == ['my "model": 1', "image-classification"]
    assert result["dataset"] == {"type": "digits", "name": "digits", "split": "test"}
    measured = json.loads((convnet / "summary.json").read_text())["test"][network]
    assert {one["name"]: one["value"] for one in result["metrics"]} == measured
    assert {one["type"] for one in result["metrics"]} >= {"accuracy"}


def test_the_card_says_what_the_run_knows(convnet, tmp_path):
    export.export(convnet, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    summary = json.loads((convnet / "summary.json").read_text())["test"]
    for name, row in summary.items():
        (line,) = [line for line in text.splitlines() if line.startswith((f"| {name},", f"| **{name}**,"))]
        shown = f"{100 * row['top1']:.2f} | {100 * row['top5']:.2f} | {row['nll']:.3f} | {100 * row['ece']:.2f} |"
        assert line.endswith(shown)
    assert "| **finetuned**," in text
    assert "on 10 labelled examples of `digits` and 1,097 unlabelled ones (the labelled ones among them)" in text
    for row in ("| estimator of the feedback | `exact` |", "| teacher's model | `mlp:width=8` |", "| seed | `0` |"):
        assert row in text
    top1 = summary["finetuned"]["top1"]
    assert f"On {500} test examples" in text
    assert f"a standard error of {100 * (top1 * (1 - top1) / 500) ** 0.5:.2f} points" in text
    parameters = sum(value.numel() for value in models.build(CONVNET, (1, 8, 8), 10).parameters())
    assert f"It has {parameters:,} parameters" in text


@pytest.mark.parametrize(
    ("network", "method", "unlabelled"),
    [("supervised", "By supervised learning", False), ("uda", "By UDA", True), ("teacher", "By Meta Pseudo", True)],
)
def test_a_baseline_is_described_as_one(convnet, tmp_path, network, method, unlabelled):
    export.export(convnet, tmp_path / "out", network=network)
    text = (tmp_path / "out" / "README.md").read_text()
    assert method in text
    assert ("unlabelled ones" in text) == unlabelled
    assert ("estimator of the feedback" in text) == (network == "teacher")
    assert f"| model | `{'mlp:width=8' if network == 'teacher' else CONVNET}` |" in text


def test_no_folder_of_ones_own_is_told(table, tmp_path):
    export.export(table, tmp_path / "out", "torch-export")
    for path in (tmp_path / "out").iterdir():
        assert os.fsencode(table.parent) not in path.read_bytes()
    assert "examples of `plants.csv`" in (tmp_path / "out" / "README.md").read_text()


def test_every_network_and_metric_has_its_words():
    assert all(network.role and network.title for network in methods.networks().values())
    assert set(model_card.METRICS) == set(metrics.METRICS)
