"""`metapl export`: what is written restores the network, alone and in another place, and says what the run knows."""

import json
import math
import sys

import pytest
import torch
from command import called
from exporting import CONVNET, config_of, run_of
from safetensors.torch import load_file
from torch import nn

import metapl
from metapl import models
from metapl.cli.export import export as verb
from metapl.evaluation import metrics
from metapl.registry.errors import InputError
from metapl.serving import export
from metapl.training import checkpoint, run_folder

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


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


# ---------------------------------------------------------------- the folder


def invoke(*args):
    return called(verb, *args)


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
