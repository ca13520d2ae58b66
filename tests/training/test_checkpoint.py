"""Files: whole or not at all; and the folder of a run, read again."""

import json

import pytest
import torch
from asserts import assert_close_tree
from safetensors.torch import save_file

from metapl.core.types import Variables
from metapl.registry.errors import InputError
from metapl.training import checkpoint, run_folder
from metapl.training.config import TrainConfig
from metapl.training.experiment import prepare
from metapl.training.phases import Result


def networks():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, generator=generator)
    params = {"first.weight": weight, "second.weight": weight, "turned": weight.T, "exact": weight.double() / 3}
    buffers = {"mean": weight[0], "seen": torch.tensor(7), "large": torch.tensor(2**40 + 1), "mask": weight > 0}
    return {"teacher": Variables(params, buffers), "pseudo-labels": Variables({"w": torch.zeros(0, 2)}, {})}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_networks_come_back_bit_for_bit(tmp_path):
    """Tied, turned, empty and integer tensors too; names, dtypes and owners are kept."""
    checkpoint.save_networks(tmp_path / "a" / "b.safetensors", networks())
    found, given = checkpoint.load_networks(tmp_path / "a" / "b.safetensors"), networks()
    assert set(found) == set(given)
    for name, network in given.items():
        assert isinstance(found[name], Variables)
        for before, after in zip(network, found[name], strict=True):
            assert set(before) == set(after)
            assert all(torch.equal(after[key], before[key]) for key in before)
            assert all(after[key].dtype == before[key].dtype for key in before)


def test_the_same_networks_give_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        checkpoint.save_networks(tmp_path / name, networks())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_saving_leaves_the_networks_alone(tmp_path):
    given = networks()
    checkpoint.save_networks(tmp_path / "x.safetensors", given)
    given["teacher"].params["first.weight"].add_(1.0)
    after = checkpoint.load_networks(tmp_path / "x.safetensors")["teacher"]
    assert torch.equal(given["teacher"].params["second.weight"], given["teacher"].params["first.weight"])
    assert torch.equal(after.params["first.weight"] + 1.0, given["teacher"].params["first.weight"])


def _fail_halfway(path):
    path.write_text("half of i")
    raise OSError("the disk is full")


@pytest.mark.parametrize("old", [None, "the old one"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, old):
    path = tmp_path / "file.json"
    if old is not None:
        path.write_text(old)
    with pytest.raises(InputError, match=r"file\.json cannot be written \(the disk is full\)"):
        checkpoint.write(path, _fail_halfway)
    assert files(tmp_path) == ([] if old is None else ["file.json"])
    assert old is None or path.read_text() == old


def test_a_file_appears_in_one_step(tmp_path):
    """While it is being written, the old one is still there, whole."""
    path = tmp_path / "file.txt"
    checkpoint.write_text(path, "old")
    seen = []

    def save(temporary):
        temporary.write_text("new")
        seen.append((path.read_text(), temporary.parent == tmp_path, temporary.suffix))

    checkpoint.write(path, save)
    assert seen == [("old", True, ".txt")]
    assert path.read_text() == "new"
    assert files(tmp_path) == ["file.txt"]


def test_json_is_indented_and_ends_with_a_newline(tmp_path):
    checkpoint.write_json(tmp_path / "deep" / "x.json", {"a": [1, 0.1]})
    text = (tmp_path / "deep" / "x.json").read_text()
    assert json.loads(text) == {"a": [1, 0.1]}
    assert text.endswith("}\n")


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut in the header", "cut in the data", "folder"])
def test_a_checkpoint_that_is_damaged(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    checkpoint.save_networks(path, networks())
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        parts = {"empty": b"", "text": b"not a checkpoint, but long enough", "cut in the header": whole[:50]}
        path.write_bytes(parts.get(damage, whole[:-1]))
    with pytest.raises(InputError, match=r"x\.safetensors cannot be read .*: is the run complete\?$"):
        checkpoint.load_networks(path)


@pytest.mark.parametrize("name", ["weight", "ema/weight", "ema/weights/w"])
def test_a_checkpoint_of_something_else(tmp_path, name):
    save_file({name: torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"x\.safetensors"):
        checkpoint.load_networks(tmp_path / "x.safetensors")


# ---------------------------------------------------------------- the folder of a run

SETTLED = {"embed": "none", "method": "mpl", "grad": "exact", "guide": "none", "alignment": "none"}
CONFIG = TrainConfig(
    **SETTLED, model="convnet:width=2,depth=1", teacher_model="mlp:width=3,depth=1", steps=2, seed=3, labels=12
)
ROW = {"top1": 0.5, "nll": 1.0, "ece": 0.25}


@pytest.fixture(scope="module")
def experiment():
    return prepare(CONFIG)


@pytest.fixture
def run(tmp_path, experiment):
    """The folder of a finished run, with the initial networks."""
    out = tmp_path / "run"
    found = {
        "teacher": Variables(*experiment.models.teacher.init(experiment.keys.of("mpl"))),
        "ema": Variables(*experiment.models.student.init(experiment.keys.of("mpl"))),
    }
    run_folder.create(out)
    run_folder.save_start(out, experiment)
    result = Result(found, {}, {"ema": ROW}, {"ema": torch.eye(10, dtype=torch.int64)})
    run_folder.save_end(out, experiment, result, started=0.0)
    return out, found


def test_a_run_reads_back(run, experiment):
    out, given = run
    loaded, found = run_folder.load(out, "cpu")
    assert loaded.config == TrainConfig(**{**vars(CONFIG), "device": "cpu"})
    assert all(torch.equal(a, b) for a, b in zip(loaded.split, experiment.split, strict=True))
    assert torch.equal(loaded.data.x_test, experiment.data.x_test)
    for name, network in given.items():
        found_here = {key: found[name].params[key] for key in network.params}, dict(found[name].buffers)
        assert_close_tree(found_here[0], network.params, rtol=0)
        assert {key: found_here[1][key].tolist() for key in network.buffers} == {
            key: value.tolist() for key, value in network.buffers.items()
        }


def test_the_saved_split_counts_and_not_the_seed(run):
    out, _ = run
    saved = json.loads((out / "split.json").read_text())
    saved["labelled"] = saved["labelled"][:3]
    (out / "split.json").write_text(json.dumps(saved))
    assert run_folder.load(out)[0].split.labelled.tolist() == saved["labelled"]


def test_summary(run):
    out, _ = run
    summary = json.loads((out / "summary.json").read_text())
    assert summary["test"] == {"ema": ROW}
    assert summary["config"] == vars(CONFIG)
    assert [summary["seed"], summary["steps"]] == [3, 2]
    assert summary["seconds"] > 0
    assert summary["peak_memory_bytes"] > 2**20


def test_environment(run):
    out, _ = run
    found = json.loads((out / "environment.json").read_text())
    assert found["torch"] == torch.__version__
    assert {"metapl", "python", "numpy", "platform", "threads", "gpu"} <= set(found)


def test_a_folder_that_exists_is_left_alone(run):
    out, _ = run
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=rf"^out = {out} exists already: name a new folder"):
        run_folder.create(out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/run cannot be made .*: name a folder that you may write$"):
        run_folder.create(tmp_path / "file" / "run")


@pytest.mark.parametrize("missing", ["config.toml", "split.json", "checkpoints/final.safetensors"])
def test_a_run_that_is_incomplete(run, missing):
    out, _ = run
    (out / missing).unlink()
    with pytest.raises(InputError, match=r"is not a run|is the run complete\?|split\.json cannot be read"):
        run_folder.load(out)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"labelled": 1, "unlabelled": [], "validation": ["a"]}'])
def test_a_split_that_is_damaged(run, text):
    out, _ = run
    (out / "split.json").write_text(text)
    with pytest.raises(InputError, match=r"split\.json.*: name the split\.json of a run on the same data$"):
        run_folder.load(out)
