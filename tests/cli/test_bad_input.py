"""What bad input gets: one line, exit code 2, and nothing left behind."""

from unittest import mock

import pytest
import torch
from command import Outcome, assert_one_line, invoke
from tiny_runs import ALONE, python

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


# ---------------------------------------------------------------- bad input


BAD = [
    ("--grad unrol", "'unrol': did you mean 'unroll'?"),
    ("--grad first-order:baseline=2", "baseline=2"),
    ("--grad first-order:reduction=max", "'max'"),
    ("--grad none:order=2", "takes no options, got 'order'"),
    ("--grad exact:order=2", "choose from fraction, method"),
    ("--unroll 0", "--unroll 0"),
    ("--grad higher --optimizer adam", "use unroll"),
    ("--unroll 2 --grad first-order", "takes one step at a time"),
    ("--labels 5", "--labels 5"),
    ("--labels 10000", "--labels 10000"),
    ("--labels -3", "--labels -3"),
    ("--labels abc", "--labels"),
    ("--validation 3", "--validation 3"),
    ("--data nowhere", "'nowhere'"),
    ("--data digits:shfit=1", "did you mean 'shift'?"),
    ("--data digits:shift=-1", "shift"),
    ("--data moons --model convnet", "convnet"),
    ("--model mlp:widht=3", "'widht': did you mean 'width'?"),
    ("--model mlp:width=0", "width=0"),
    ("--model mlp:width", "write mlp:width=VALUE"),
    ("--model resnet", "'resnet'"),
    ("--teacher-model mlp:depth=x", "depth=x"),
    ("--method mlp", "did you mean 'mpl'?"),
    ("--optimizer sgdd", "did you mean 'sgd'?"),
    ("--optimizer sgd:nesterov=true", "momentum"),
    ("--pseudo-labels soft --grad first-order", "--pseudo-labels soft"),
    ("--pseudo-labels sfot", "did you mean 'soft'?"),
    ("--steps 0", "--steps 0"),
    ("--steps 2.5", "--steps"),
    ("--steps 3 --warmup 3", "--warmup 3"),
    ("--schedule linear", "choose from constant, cosine"),
    ("--lr nan", "--lr nan"),
    ("--lr -1", "--lr -1"),
    ("--lr fast", "--lr"),
    ("--uda-threshold 1.5", "--uda-threshold 1.5"),
    ("--smoothing inf", "--smoothing inf"),
    ("--method uda --uda-weight 0", "--uda-weight 0"),
    ("--device cuda:7", "cuda:7"),
    ("--device tpu", "tpu"),
    ("--device meta", "meta"),
    ("--config nowhere.toml", "nowhere.toml"),
    ("--nope", "--nope"),
    ("--steps", "--steps"),
    ("surplus", "surplus"),
]


@pytest.mark.parametrize("named", [True, False], ids=["with --out", "without"])
@pytest.mark.parametrize(("args", "word"), BAD, ids=[args for args, _ in BAD])
def test_bad_input_to_train(tmp_path, monkeypatch, args, word, named):
    """One line, exit code 2, and nothing is left behind."""
    if "cuda:7" in args and torch.cuda.device_count() > 7:
        pytest.skip("there is such a device")
    monkeypatch.chdir(tmp_path)
    where = ("--out", tmp_path / "run") if named else ()
    assert_one_line(invoke("train", *where, *args.split()), word)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["stepz = 3", "steps = ", 'lr = "fast"', "lr = nan", "grad = 'unrol'"])
def test_bad_files_of_configuration(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given.toml").write_text(text)
    word = {"lr = nan": "--lr nan", "grad = 'unrol'": "'unrol'"}.get(text, "given.toml")
    assert_one_line(invoke("train", "--config", "given.toml"), word)
    assert [path.name for path in tmp_path.iterdir()] == ["given.toml"]


@pytest.mark.parametrize("kind", ["folder", "file", "below a file"])
def test_a_place_where_no_run_can_be_written(tmp_path, kind):
    place = tmp_path / "place"
    mine = place / "mine" if kind == "folder" else place
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("precious")
    out = place / "run" if kind == "below a file" else place
    assert_one_line(invoke("train", *ALONE, "--out", out), f"--out {out}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "precious"


def test_a_folder_that_may_not_be_written(tmp_path):
    with mock.patch("pathlib.Path.mkdir", side_effect=PermissionError(13, "Permission denied")):
        outcome = invoke("train", *ALONE, "--out", tmp_path / "run")
    assert_one_line(outcome, "Permission denied")


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("trian",), "trian"),
        (("--nope",), "--nope"),
        (("grads", "surplus"), "surplus"),
        (("grads", "--jsn", "x"), "--jsn"),
    ],
)
def test_bad_input_to_the_rest(args, word):
    assert_one_line(invoke(*args), word)


def test_grads_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert_one_line(invoke("grads", "--json", tmp_path / "file" / "x.json"), "x.json", silent=False)


@pytest.mark.parametrize("args", [["train", "--lr", "nan"], ["train", "--nope"], ["trian"]])
def test_bad_input_in_a_process_of_its_own(args):
    found = python("from metapl.cli.main import main; main()", *args)
    assert_one_line(Outcome(found.returncode, found.stdout, found.stderr), args[-1])
