"""The command line: what a run leaves behind, and what bad input leaves behind."""

import json
import math
import subprocess
import sys
import tomllib
from dataclasses import asdict, fields
from unittest import mock

import pytest
import torch
from asserts import assert_close_tree
from command import Outcome, assert_one_line, invoke
from matplotlib import image

from metapl import __version__
from metapl.cli import display
from metapl.core.types import Variables
from metapl.estimators import ESTIMATORS
from metapl.methods import METHODS
from metapl.registry import notation
from metapl.training import checkpoint, phases
from metapl.training.config import TrainConfig, flag, resolve

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

MPL_ALONE = ("--method", "mpl", "--guide", "none")
TINY = (*MPL_ALONE, "--steps", "3", "--finetune-steps", "2", "--batch", "32", "--device", "cpu")
MLP = ("--model", "mlp:width=8,depth=1")
ALONE = (*TINY, *MLP, "--no-baselines")
MPL = {"teacher", "student", "ema", "finetuned"}
PANEL = {"logistic", "self-training", "spreading"}
FITTED = {*PANEL, "consensus"}
BASELINES = {*PANEL, "supervised", "pseudo-labels", "uda"}


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """`train(*args)`: the folder of a finished run; the same arguments are trained once."""
    finished = {}

    def trained(*args):
        if args not in finished:
            folder = tmp_path_factory.mktemp("run") / "out"
            outcome = invoke("train", *args, "--out", folder)
            assert (outcome.code, outcome.err) == (0, "")
            finished[args] = folder
        return finished[args]

    return trained


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def networks_of(folder):
    return checkpoint.load_networks(folder / "checkpoints" / "final.safetensors")


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


FILES = {
    "config.toml",
    "environment.json",
    "split.json",
    "fingerprint.json",
    "data.json",
    "confusion.json",
    "metrics.jsonl",
    "summary.json",
    "checkpoints/final.safetensors",
    "plots/curves.png",
}


def assert_whole(folder, networks, extra=frozenset()):
    """Every file of a run, each of which can be read, and every network in each of them."""
    files = FILES - {"plots/curves.png"} if networks <= FITTED else FILES
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == files | set(extra)
    summary = summary_of(folder)
    assert set(summary["test"]) == set(summary["validation"]) == set(networks_of(folder)) == networks
    for row in (*summary["test"].values(), *summary["validation"].values()):
        assert set(row) == {"top1", "top5", "nll", "ece", "balanced", "macro_f1"}
        assert row["top1"] <= row["top5"] <= 1
        assert 0 <= row["top1"] <= 1
        assert 0 <= row["ece"] <= 1
        assert row["nll"] > 0
    assert summary["config"] == asdict(resolve({}, folder / "config.toml"))
    for picture in (folder / "plots").glob("*"):
        assert image.imread(picture).std() > 0.01


# ---------------------------------------------------------------- training


def test_a_run_with_its_baselines(train):
    folder = train(*TINY, *MLP)
    assert_whole(folder, MPL | BASELINES)
    phases = [line["phase"] for line in lines_of(folder)]
    assert phases == ["supervised", "pseudo-labels", "uda", "mpl", "finetune"]


def test_the_summary_keeps_its_contract(train):
    summary = summary_of(train(*TINY, *MLP))
    assert {"teacher", "student", "ema", "finetuned", "supervised"} <= set(summary["test"])
    assert {"config", "seed", "steps", "seconds", "peak_memory_bytes"} <= set(summary)
    assert [summary["seed"], summary["steps"], summary["pseudo_labels"]] == [0, 3, "soft"]
    assert summary["seconds"] > 0
    assert summary["peak_memory_bytes"] > 2**20


@pytest.mark.parametrize(
    ("method", "networks"),
    [
        ("mpl", MPL),
        ("reduced", {*MPL, "fixed"}),
        ("uda", {"uda"}),
        ("pseudo-labels", {"supervised", "pseudo-labels"}),
        ("supervised", {"supervised"}),
        *((name, {name}) for name in sorted(FITTED)),
    ],
)
def test_methods(train, method, networks):
    folder = train(*ALONE, "--method", method)
    assert_whole(folder, networks)
    if method in FITTED:
        assert not lines_of(folder)
    else:
        assert lines_of(folder)[-1]["phase"] == ("finetune" if method in ("mpl", "reduced") else method)


def test_every_method_is_tested():
    assert set(METHODS) == {"mpl", "reduced", "uda", "pseudo-labels", "supervised", *FITTED}


@pytest.mark.slow
@pytest.mark.parametrize("grad", [*ESTIMATORS, "first-order:baseline=0,reduction=sum"])
def test_estimators(train, grad):
    folder = train(*ALONE, "--grad", grad)
    assert_whole(folder, MPL)
    (line,) = [line for line in lines_of(folder) if line["phase"] == "mpl"]
    assert set(line["metrics"]) == {"supervised", "uda", "student", "exam", "feedback"}
    assert (line["metrics"]["feedback"] > 0) == (grad != "none")
    assert summary_of(folder)["pseudo_labels"] == ESTIMATORS[grad.partition(":")[0]]().targets[0]


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_convolutional_networks(train, norm):
    folder = train(*TINY, "--no-baselines", "--model", f"convnet:width=8,depth=2,norm={norm}")
    assert_whole(folder, MPL)
    names = networks_of(folder)["student"].buffers
    assert any("running_mean" in name for name in names) == (norm == "batch")


def test_a_teacher_with_a_network_of_its_own(train):
    folder = train(*TINY, *MLP, "--no-baselines", "--teacher-model", "convnet:width=4,depth=1")
    found = networks_of(folder)
    assert found["teacher"].buffers
    assert not found["student"].buffers


def test_moons_come_with_a_picture_of_their_regions(train):
    folder = train(*TINY, *MLP, "--data", "moons:points=300", "--labels", "6", "--validation", "20")
    assert_whole(folder, MPL | BASELINES, extra={"plots/regions.png"})


def test_no_validation_part_and_no_finetuning(train):
    folder = train(*ALONE, "--validation", "0", "--finetune-steps", "0")
    summary = summary_of(folder)
    assert summary["validation"] == {}
    assert set(summary["test"]) == {"teacher", "student", "ema"}
    assert invoke("eval", folder, "--part", "validation").err.count("\n") == 1


def test_the_split_of_a_run_is_balanced_and_apart(train):
    folder = train(*TINY, *MLP)
    parts = json.loads((folder / "split.json").read_text())
    parts["unlabelled"] = [index for first, last in parts["unlabelled"] for index in range(first, last + 1)]
    assert {name: len(part) for name, part in parts.items()} == {"labelled": 10, "unlabelled": 1097, "validation": 200}
    assert not set(parts["validation"]) & set(parts["labelled"] + parts["unlabelled"])


def test_what_a_run_prints(tmp_path):
    outcome = invoke("train", *ALONE, "--out", tmp_path / "run")
    row = summary_of(tmp_path / "run")["test"]["finetuned"]
    (printed,) = [line for line in outcome.out.splitlines() if line.startswith("│ finetuned")]
    assert printed.strip("│").split() == [
        *("finetuned", "│", f"{100 * row['top1']:.2f}", "│", f"{100 * row['top5']:.2f}", "│"),
        *(f"{row['nll']:.3f}", "│", f"{100 * row['ece']:.2f}"),
    ]
    assert f"metapl eval {tmp_path / 'run'}" in outcome.out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (7169, "119 min"), (7170, "2 h 0 min"), (10_799, "3 h 0 min")],
)
def test_the_time_left_is_rounded_once(seconds, text):
    assert display.duration(seconds) == text


def test_a_preset_can_be_changed_by_flags_until_it_runs_here(tmp_path):
    data = ("--data", "digits", "--augment", "auto", "--labels", "10", "--validation", "20")
    outcome = invoke("train", "--preset", "cifar10-4k", *data, *ALONE, "--warmup", "1", "--out", tmp_path / "run")
    assert outcome.code == 0
    config = summary_of(tmp_path / "run")["config"]
    assert (config["lr"], config["smoothing"], config["feedback_size"], config["finetune_batch"]) == (
        0.3,
        0.1,
        "raw",
        512,
    )
    assert (config["data"], config["steps"]) == ("digits", 3)


def test_a_logger_that_is_not_installed_stops_the_run_before_it_has_a_folder(tmp_path):
    with mock.patch.dict(sys.modules, {"tensorboard": None, "torch.utils.tensorboard": None}):
        outcome = invoke("train", *ALONE, "--log", "tensorboard", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "metapl[tensorboard]" in outcome.err
    assert not (tmp_path / "run").exists()


def test_without_a_folder_runs_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert invoke("train", *ALONE, "--method", "supervised", "--seed", "4").code == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "digits-supervised-seed4",
        "digits-supervised-seed4-2",
    ]


def test_flags_override_the_file_and_the_rest_is_saved(tmp_path):
    file = tmp_path / "given.toml"
    file.write_text('steps = 2\nmethod = "supervised"\nlabels = 30\nmodel = "mlp:width=4"\nbaselines = false\n')
    outcome = invoke("train", "--config", file, "--steps", "3", "--device", "cpu", "--out", tmp_path / "run")
    assert outcome.code == 0
    given = {"steps": 3, "method": "supervised", "labels": 30, "model": "mlp:width=4", "baselines": False}
    expected = TrainConfig(**given, device="cpu", grad="exact", guide="consensus", alignment="uniform")
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text()) == asdict(expected)


def test_a_saved_configuration_gives_the_same_run(train, tmp_path):
    folder = train(*ALONE, "--grad", "first-order", "--seed", "5")
    assert invoke("train", "--config", folder / "config.toml", "--out", tmp_path / "run").code == 0
    assert _bytes(tmp_path / "run") == _bytes(folder)


def _bytes(folder):
    return (folder / "checkpoints" / "final.safetensors").read_bytes()


def test_the_same_seed_gives_the_same_run_bit_for_bit(train, tmp_path):
    first = train(*TINY, *MLP)
    assert invoke("train", *TINY, *MLP, "--out", tmp_path / "again").code == 0
    assert _bytes(tmp_path / "again") == _bytes(first)
    assert summary_of(tmp_path / "again")["test"] == summary_of(first)["test"]
    assert (tmp_path / "again" / "split.json").read_bytes() == (first / "split.json").read_bytes()


def test_another_seed_gives_another_run(train):
    one, other = train(*ALONE), train(*ALONE, "--seed", "1")
    assert (one / "split.json").read_bytes() != (other / "split.json").read_bytes()
    assert _bytes(one) != _bytes(other)


def test_arms_share_split_weights_and_batches(train):
    """After one step the students of both arms are the same, for the same teacher has taught them the same batch."""
    once = ("--steps", "1", "--finetune-steps", "0", *MLP, "--no-baselines", "--device", "cpu")
    exact, silent = (train(*once, "--grad", grad) for grad in ("exact", "none"))
    assert (exact / "split.json").read_bytes() == (silent / "split.json").read_bytes()
    one, other = networks_of(exact), networks_of(silent)
    assert_close_tree(tuple(one["student"]), tuple(other["student"]), rtol=0)
    assert not torch.equal(one["teacher"].params["1.weight"], other["teacher"].params["1.weight"])


def test_baselines_change_nothing_of_the_method(train):
    alone, together = networks_of(train(*ALONE)), networks_of(train(*TINY, *MLP))
    for name in MPL:
        assert_close_tree(tuple(alone[name]), tuple(together[name]), rtol=0)


def test_a_run_that_diverges_says_so_in_one_line(tmp_path):
    outcome = invoke("train", *ALONE, "--lr", "1e30", "--out", tmp_path / "run")
    assert_one_line(outcome, "--lr")


def test_interrupting(tmp_path, monkeypatch):
    monkeypatch.setattr(phases, "run", mock.Mock(side_effect=KeyboardInterrupt))
    outcome = invoke("train", *ALONE, "--out", tmp_path / "run")
    assert outcome.code == 130
    assert outcome.err.count("\n") <= 1


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize("part", ["test", "validation"])
@pytest.mark.parametrize(
    "args",
    [
        (*TINY, *MLP),
        (*TINY, "--no-baselines", "--model", "convnet:width=8,depth=2,norm=batch"),
        (*TINY, *MLP, "--no-baselines", "--teacher-model", "convnet:width=4,depth=1"),
    ],
    ids=["mlp", "batchnorm", "two networks"],
)
def test_evaluating_a_run_gives_its_numbers_again(train, tmp_path, part, args):
    folder, file = train(*args), tmp_path / "deep" / "numbers.json"
    outcome = invoke("eval", folder, "--part", part, "--device", "cpu", "--json", file)
    assert (outcome.code, outcome.err) == (0, "")
    expected, found = summary_of(folder)[part], json.loads(file.read_text())
    assert {name: pytest.approx(row, abs=1e-6) for name, row in expected.items()} == found
    assert f"{100 * found['finetuned']['top1']:.2f}" in outcome.out


def test_evaluating_reads_the_weights(train, tmp_path):
    """Other weights in the checkpoint, other numbers."""
    folder, copy = train(*ALONE), tmp_path / "copy"
    for name in ("config.toml", "split.json"):
        checkpoint.write_text(copy / name, (folder / name).read_text())
    still = {
        name: Variables({key: torch.zeros_like(value) for key, value in network.params.items()}, network.buffers)
        for name, network in networks_of(folder).items()
    }
    checkpoint.save_networks(copy / "checkpoints" / "final.safetensors", still)
    assert invoke("eval", copy, "--json", tmp_path / "numbers.json").code == 0
    for row in json.loads((tmp_path / "numbers.json").read_text()).values():
        assert row["nll"] == pytest.approx(math.log(10), rel=1e-6)
        assert row["top1"] == pytest.approx(0.1)


# ---------------------------------------------------------------- help and lists


def test_grads_lists_every_estimator(tmp_path):
    outcome = invoke("grads", "--json", tmp_path / "grads.json")
    assert (outcome.code, outcome.err) == (0, "")
    rows = json.loads((tmp_path / "grads.json").read_text())
    assert [row["name"] for row in rows] == list(ESTIMATORS)
    for row in rows:
        build = ESTIMATORS[row["name"]]
        assert row["claim"] == build().claim
        assert row["cost"] == build().cost
        assert row["labels"] == ", ".join(build().targets)
        assert row["about"].endswith(".")
        assert notation.parse(row["signature"], ESTIMATORS, "estimator") == (row["name"], notation.options(build))
        assert row["name"] in outcome.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--help",), ["train", "eval", "grads"]),
        (("train", "--help"), ["--out", "--config", "which must not exist", "TOML file"]),
        (("eval", "--help"), ["--part", "--json"]),
        (("grads", "--help"), ["--json"]),
        (("--version",), [__version__]),
    ],
)
def test_help(args, words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    outcome = invoke(*args)
    assert (outcome.code, outcome.err) == (0, "")
    assert all(word in outcome.out for word in words)


def test_every_field_is_a_flag_with_its_help_and_default(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    lines = invoke("train", "--help").out.splitlines()
    for field in fields(TrainConfig):
        (line,) = [line for line in lines if line.strip("│ ").startswith(f"{flag(field.name)} ")]
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        assert field.metadata["help"] in line
        assert f"[default: {'none' if default == '' else default}]" in line


def test_no_arguments_print_the_help():
    assert invoke().out.split() == invoke("--help").out.split()


def _process(code, *args):
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["eval", "--help"], ["train", "--lr", "nan"]])
def test_help_and_simple_errors_come_without_torch(args):
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('LOADED', 'torch' in sys.modules, 'sklearn' in sys.modules))\n"
        "from metapl.cli.main import main\n"
        "main()"
    )
    assert _process(code, *args).stdout.splitlines()[-1] == "LOADED False False"


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
    place.mkdir() if kind == "folder" else place.write_text("precious")
    out = place / "run" if kind == "below a file" else place
    assert_one_line(invoke("train", *ALONE, "--out", out), f"--out {out}")
    assert list(tmp_path.rglob("*")) == [place]
    assert kind == "folder" or place.read_text() == "precious"


def test_a_folder_that_may_not_be_written(tmp_path):
    with mock.patch("pathlib.Path.mkdir", side_effect=PermissionError(13, "Permission denied")):
        outcome = invoke("train", *ALONE, "--out", tmp_path / "run")
    assert_one_line(outcome, "Permission denied")


def _damaged(folder, tmp_path, missing):
    copy = tmp_path / "copy"
    for name in {"config.toml", "split.json"} - {missing}:
        checkpoint.write_text(copy / name, (folder / name).read_text())
    if missing != "final.safetensors":
        checkpoint.save_networks(copy / "checkpoints" / "final.safetensors", networks_of(folder))
    return copy


@pytest.mark.parametrize("missing", ["config.toml", "split.json", "final.safetensors"])
def test_evaluating_a_run_that_is_incomplete(train, tmp_path, missing):
    copy = _damaged(train(*ALONE), tmp_path, missing)
    assert_one_line(invoke("eval", copy), "is not a run" if missing == "config.toml" else missing)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("nowhere",), "nowhere is not a run"),
        ((".",), "is not a run"),
        ((), "'run'"),
        (("RUN", "--part", "train"), "--part train"),
        (("RUN", "--device", "cuda:7"), "cuda:7"),
        (("RUN", "--json", "file/numbers.json"), "file/numbers.json"),
        (("RUN", "--nope"), "--nope"),
    ],
    ids=str,
)
def test_bad_input_to_eval(train, tmp_path, monkeypatch, args, word):
    folder = train(*ALONE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert_one_line(invoke("eval", *(folder if arg == "RUN" else arg for arg in args)), word)


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
    assert_one_line(invoke("grads", "--json", tmp_path / "file" / "x.json"), "x.json")


@pytest.mark.parametrize("args", [["train", "--lr", "nan"], ["train", "--nope"], ["trian"]])
def test_bad_input_in_a_process_of_its_own(args):
    found = _process("from metapl.cli.main import main; main()", *args)
    assert_one_line(Outcome(found.returncode, found.stdout, found.stderr), args[-1])
