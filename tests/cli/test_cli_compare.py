"""`metapl compare`."""

import itertools
import json

import pytest
import torch
from command import assert_one_line, invoke, painting
from matplotlib import image

from metapl.evaluation import quality
from metapl.reporting import plots
from metapl.studies import comparison, snapshot

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


SMALL = ("--model", "mlp:width=8,depth=1", "--batch", "16", "--device", "cpu", "--draws", "10", "--rounds", "2")
MPL = ("--method", "mpl", "--guide", "none")
FEW = (*SMALL, "--steps", "1", "--grad", "score", "--grad", "taylor:sign=released")


COLUMNS = ("labels", "cosine", "of one draw", "projection", "bias", "variance", "FLOPs", "time", "memory")
TO_REACH = ("draws to 0.8", "FLOPs to 0.8", "time to 0.8")
FIELDS = {
    *("name", "claim", "labels", "curve", "flops_to_reach", "time_to_reach", "milliseconds_to_reach"),
    *(*quality.Accuracy._fields, *comparison.Cost._fields),
}


def test_the_command(tmp_path):
    file, picture = tmp_path / "deep" / "numbers.json", tmp_path / "picture.png"
    outcome = painting("compare", *FEW, "--cosine", "0.8", "--json", file, "--plot", picture)
    assert (outcome.code, outcome.err) == (0, "")
    assert all(column in outcome.out for column in (*COLUMNS, *TO_REACH))
    record = json.loads(file.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert [row["name"] for row in record["rows"]] == ["none", "exact", "score", "taylor:sign=released"]
    assert all(outcome.out.count(f"│ {row['name']} ") == 2 for row in record["rows"])
    assert all(set(row) == FIELDS for row in record["rows"])
    assert (record["steps"], record["draws"], record["cosine"], record["numbers"]) == (1, 10, 0.8, 160)
    assert record["config"]["batch"] == 16
    assert (record["config"]["method"], record["config"]["guide"]) == ("mpl", "none")
    assert record["environment"]["torch"] == torch.__version__
    assert record["rows"][3]["draws_needed"] is None
    assert record["rows"][1]["bias"] == 0.0
    assert image.imread(picture).std() > 0.01
    assert {path.name for path in tmp_path.iterdir()} == {"deep", "picture.png"}


def test_names_in_the_picture_do_not_touch():
    for wanted in ([0.99, 1.0, 0.98, 0.3], [1.0] * 12, [0.0] * 5, []):
        for ordered in (False, True):
            heights = plots._apart(wanted, 0.0, 1.03, ordered=ordered)
            gaps = [a - b for a, b in itertools.pairwise(heights if ordered else sorted(heights, reverse=True))]
            assert all(gap > 0.047 for gap in gaps)
            assert all(0.0 < height <= 1.03 for height in heights)
    assert plots._apart([0.9, 0.2, 0.5], 0.0, 1.03) == [0.9, 0.2, 0.5]


def test_what_the_table_says(tmp_path):
    outcome = invoke("compare", *FEW, "--json", tmp_path / "numbers.json")
    lines = [line for line in outcome.out.splitlines() if line.startswith("│ exact ")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    row = json.loads((tmp_path / "numbers.json").read_text())["rows"][1]
    assert cells[0] == ["exact", "soft", "1.000", "1.000", "1.000", "0.000", "0"]
    assert cells[1][:2] == ["exact", f"{row['flops_ratio']:.2f}"]
    assert cells[1][4:6] == ["1", f"{row['flops_ratio']:.3g}"]


def test_estimators_of_several_steps_only():
    outcome = invoke(
        *("compare", *SMALL, "--steps", "0", "--unroll", "2"), *("--grad", "exact:fraction=0.5", "--grad", "unroll")
    )
    assert outcome.code == 0
    assert "left out   exact:fraction=0.5: takes one step at a time, not 2" in outcome.out
    assert "│ unroll " in outcome.out


def test_a_run_to_start_from(tmp_path):
    run, file = tmp_path / "run", tmp_path / "numbers.json"
    train = ("--steps", "3", "--finetune-steps", "0", "--no-baselines", "--unroll", "2", "--labels", "20")
    assert invoke("train", *SMALL[:6], *MPL, *train, "--out", run).code == 0
    outcome = invoke("compare", "--run", run, *SMALL[4:], "--grad", "unroll", "--json", file)
    assert (outcome.code, outcome.err) == (0, "")
    record = json.loads(file.read_text())
    assert (record["run"], record["steps"]) == (str(run), 3)
    assert (record["config"]["unroll"], record["config"]["labels"], record["numbers"]) == (2, 20, 320)
    assert record["rows"][2]["cosine"] == pytest.approx(1.0)


def test_the_weights_of_the_run_are_those_that_are_compared(tmp_path):
    from metapl.training import run_folder  # noqa: PLC0415

    run = tmp_path / "run"
    assert invoke("train", *SMALL[:6], *MPL, "--steps", "2", "--no-baselines", "--out", run).code == 0
    experiment, networks = run_folder.load(run, "cpu")
    found = snapshot.restored(experiment, networks)
    assert torch.equal(found.state.student.params["1.weight"], networks["student"].params["1.weight"])
    assert torch.equal(found.state.teacher.params["1.weight"], networks["teacher"].params["1.weight"])
    assert not torch.equal(found.state.student.params["1.weight"], found.state.teacher.params["1.weight"])


def test_a_run_without_a_teacher(tmp_path):
    run = tmp_path / "run"
    assert invoke("train", *SMALL[:6], "--steps", "2", "--method", "uda", "--out", run).code == 0
    assert_one_line(invoke("compare", "--run", run), "--method mpl")


def test_a_guide_in_a_file_guides_nothing(tmp_path):
    """No classical method is fitted, and the record does not claim one."""
    file, numbers = tmp_path / "config.toml", tmp_path / "numbers.json"
    file.write_text('method = "uda"\nguide = "consensus"\n')
    assert invoke("compare", *FEW, "--config", file, "--json", numbers).code == 0
    config = json.loads(numbers.read_text())["config"]
    assert (config["method"], config["guide"]) == ("mpl", "none")
    assert_one_line(invoke("compare", *FEW, "--guide", "consensus"), "--guide")


BAD = [
    ("--grad unrol", "'unrol': did you mean 'unroll'?"),
    ("--grad exact --grad first-order:baseline=2", "baseline=2"),
    ("--draws 1", "--draws 1"),
    ("--cosine 0", "--cosine 0.0"),
    ("--cosine 1", "--cosine 1.0"),
    ("--cosine nan", "--cosine nan"),
    ("--rounds 0", "--rounds 0"),
    ("--steps -1", "--steps -1"),
    ("--labels 5", "--labels 5"),
    ("--unroll 0", "--unroll 0"),
    ("--lr -1", "--lr -1"),
    ("--lr 1e30 --steps 5", "no longer finite"),
    ("--pseudo-labels sfot", "did you mean 'soft'?"),
    ("--data digits:shfit=1", "did you mean 'shift'?"),
    ("--run nowhere", "nowhere is not a run"),
    ("--run nowhere --labels 3 --steps 2", "leave out --labels, --steps"),
    ("--config nowhere.toml", "nowhere.toml"),
    ("--json file/numbers.json", "file/numbers.json"),
    ("--json .", "--json . must be a file"),
    ("--plot file/picture.png", "file/picture.png"),
    ("--plot picture.jpg", "ends in .png"),
    ("--nope", "--nope"),
]


@pytest.mark.parametrize(("args", "word"), BAD, ids=[args for args, _ in BAD])
def test_bad_input(tmp_path, monkeypatch, args, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    defaults = () if "--run" in args else SMALL[:4]
    assert_one_line(invoke("compare", *defaults, *args.split()), word)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "precious"


def test_a_file_that_is_there_is_kept_until_there_is_a_new_one(tmp_path):
    """A run that stops leaves the result of the last one alone."""
    file = tmp_path / "numbers.json"
    file.write_text("{}")
    assert invoke("compare", *SMALL, "--json", file, "--labels", "5").code == 2
    assert file.read_text() == "{}"
