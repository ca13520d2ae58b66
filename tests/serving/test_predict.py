"""`metapl predict`: against a network written out in numpy, and what happens to names, tables and bad files."""

import csv
import io
import math
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.numpy import load_file
from typer.testing import CliRunner

from metapl.cli.predict import predict as verb
from metapl.cli.train import train
from metapl.data.examples import Inputs
from metapl.data.formats import images
from metapl.registry.errors import InputError
from metapl.serving import predict
from metapl.training import run_folder

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

TINY = {"method": "mpl", "guide": "none", "steps": 4, "finetune_steps": 2, "baselines": False, "device": "cpu"}
TINY |= {"model": "mlp:width=8,depth=1"}
SPECIES = ("ant", "bee", "cat")


def run_of(folder, **flags):
    train(out=folder, **{**TINY, **flags})
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("digits") / "run")


@pytest.fixture(scope="module")
def moons(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("moons") / "run", data="moons:points=200", labels=4)


def rows_of(count, seed=0):
    """Numbers by which the species can be told apart, and the species."""
    generator = np.random.default_rng(seed)
    species = np.arange(count) % 3
    return generator.normal(size=(count, 2)).round(3) + species[:, None], [SPECIES[one] for one in species]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    lines = [f"{a},{b},{label}" for (a, b), label in zip(*rows_of(90), strict=True)]
    (folder / "train.csv").write_text("\n".join(["size,weight,species", *lines]) + "\n")
    # Enough steps for some to be predicted right and some wrong.
    return run_of(folder / "run", data=str(folder / "train.csv"), steps=30, labels=30)


def saved(folder, count, shape=(8, 8), seed=0):
    """Grey images, and the levels in them."""
    folder.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    for number, one in enumerate(levels):
        Image.fromarray(one).save(folder / f"{number:02d}.png")
    return levels


def perceptron(run, x, network="finetuned"):
    """Softmax of a perceptron with one hidden layer, in float64, from the file of the weights alone."""
    tensors = load_file(run / "checkpoints" / "final.safetensors")
    weight = {name: tensors[f"{network}/params/{name}"].astype(np.float64) for name in ("1.weight", "1.bias")}
    last = {name: tensors[f"{network}/params/{name}"].astype(np.float64) for name in ("3.weight", "3.bias")}
    hidden = np.maximum(x.reshape(len(x), -1) @ weight["1.weight"].T + weight["1.bias"], 0)
    logits = hidden @ last["3.weight"].T + last["3.bias"]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def standardised(run, levels):
    form = run_folder.serve(run, device="cpu").form
    return (levels / 255 - form.details["mean"][0]) / form.details["std"][0]


def invoke(*args):
    app = typer.Typer()
    app.command()(verb)
    outcome = CliRunner().invoke(app, list(map(str, args)))
    if outcome.exception and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    assert outcome.exit_code == 0
    return outcome


def read(text):
    header, *rows = csv.reader(io.StringIO(text))
    return header, rows


# ---------------------------------------------------------------- probabilities


def assert_rows(rows, expected, classes, first=1):
    """Class, confidence and probabilities of each row, from column `first` on, are those of `expected`."""
    assert len(rows) == len(expected)
    for row, values in zip(rows, expected, strict=True):
        found = np.array(row[first + 1 :], dtype=np.float64)
        np.testing.assert_allclose(found, [values.max(), *values], rtol=0, atol=3e-7)
        assert row[first] == classes[values.argmax()]
        assert float(row[first + 1]) == found[1:].max()
        assert math.isclose(found[1:].sum(), 1.0, abs_tol=2**-23)


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_images_are_predicted_in_order(digits, tmp_path, batch):
    levels = saved(tmp_path / "some", 7)
    outcome = invoke(digits, tmp_path / "some", "--batch", batch)
    header, rows = read(outcome.stdout)
    assert header == ["name", "prediction", "confidence", *(f"p({digit})" for digit in range(10))]
    assert [row[0] for row in rows] == [str(tmp_path / "some" / f"{number:02d}.png") for number in range(7)]
    assert_rows(rows, perceptron(digits, standardised(digits, levels)), [str(digit) for digit in range(10)])
    assert outcome.stderr == f"predicted  7 examples with finetuned of {digits}\n"


def test_the_order_is_that_of_the_arguments(digits, tmp_path):
    saved(tmp_path, 3)
    given = [tmp_path / "02.png", tmp_path / "00.png"]
    assert [row[0] for row in read(invoke(digits, *given).stdout)[1]] == list(map(str, given))


@pytest.mark.parametrize("network", ["ema", "student", "teacher"])
def test_another_network(digits, tmp_path, network):
    levels = saved(tmp_path, 5)
    outcome = invoke(digits, tmp_path, "--network", network)
    expected = perceptron(digits, standardised(digits, levels), network)
    assert_rows(read(outcome.stdout)[1], expected, [str(digit) for digit in range(10)])
    assert f"with {network} of" in outcome.stderr


def test_arrays(moons, tmp_path):
    """In the units of the file; the run standardises them as its training data."""
    x = np.random.default_rng(0).normal(size=(9, 2))
    np.save(tmp_path / "x.npy", x)
    header, rows = read(invoke(moons, tmp_path / "x.npy", "--batch", 4).stdout)
    assert header == ["name", "prediction", "confidence", "p(upper)", "p(lower)"]
    form = run_folder.serve(moons, device="cpu").form
    expected = perceptron(moons, (x - form.details["mean"]) / form.details["std"])
    assert_rows(rows, expected, ("upper", "lower"))


def test_a_float32_is_written_so_that_it_comes_back(digits, tmp_path):
    saved(tmp_path, 4)
    serving = run_folder.serve(digits, device="cpu")
    x = images.read(serving.form, [tmp_path]).x
    (found,) = predict.probabilities(serving, x)
    rows = read(invoke(digits, tmp_path).stdout)[1]
    written = torch.tensor([[float(value) for value in row[3:]] for row in rows], dtype=torch.float64)
    assert torch.equal(written.float(), found)
    assert (written.sum(1) - 1).abs().max() <= 2**-24 + 1e-9


def test_probabilities_are_rounded_once(table):
    """Of many classes, whose sum would leave 1 if they were computed in float32."""
    logits = 10 * torch.randn(50, 1000, generator=torch.Generator().manual_seed(0))
    serving = run_folder.serve(table, device="cpu")
    echo = serving.model._replace(apply=lambda params, buffers, x, train: (x, buffers))
    found = torch.cat(list(predict.probabilities(serving._replace(model=echo), logits, batch=20)))
    powers = np.exp(logits.double().numpy())
    expected = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(found.numpy(), expected, rtol=2**-24 + 1e-12, atol=0)
    assert (found.double().sum(1) - 1).abs().max() <= 2**-24


class Store:
    """Ten images that are not in memory; notes how many are asked for, and how much was written by then."""

    shape, dtype = torch.Size([10, 1, 8, 8]), torch.uint8

    def __init__(self, written):
        self.asked, self.written = [], written

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        self.asked.append((len(index), self.written()))
        return torch.zeros(len(index), *self.shape[1:], dtype=self.dtype)


def test_only_one_batch_is_asked_for_at_a_time(digits, monkeypatch):
    """Rows are written before the next examples are read."""
    file = io.StringIO()
    store = Store(lambda: file.getvalue().count("\n"))
    monkeypatch.setattr("metapl.data.inputs.read", lambda form, places: Inputs(list(map(str, range(10))), store))
    count = predict.write(file, run_folder.serve(digits, device="cpu"), [], batch=4)
    assert store.asked == [(4, 1), (4, 5), (2, 9)]
    assert count == (10, 0, 0, Counter())


@pytest.mark.parametrize("out", ["-", "found.csv"])
def test_the_size_of_a_batch(digits, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    for given, wanted in (((), [10]), (("--batch", 7), [7, 3])):
        store = Store(lambda: 0)
        monkeypatch.setattr("metapl.data.inputs.read", lambda form, places, x=store: Inputs(["x"] * 10, x))
        invoke(digits, "x.png", "--out", out, *given)
        assert [size for size, _ in store.asked] == wanted


# ---------------------------------------------------------------- tables


def fresh(path, *, header="id,weight,species,size", labels=True, count=12, cells=("{n}", "{b}", "{label}", "{a}")):
    x, species = rows_of(count, seed=1)
    values = [
        {"n": n, "a": a, "b": b, "label": label if labels else ""}
        for n, ((a, b), label) in enumerate(zip(x, species, strict=True))
    ]
    path.write_text("\n".join([header, *(",".join(cells).format(**one) for one in values)]) + "\n")
    return x, species


def features(run, x):
    columns = {one["name"]: one for one in run_folder.serve(run, device="cpu").form.details["columns"]}
    return np.stack([(x[:, i] - columns[n]["mean"]) / columns[n]["std"] for i, n in enumerate(("size", "weight"))], 1)


def test_tables_keep_their_columns(table, tmp_path):
    x, _ = fresh(tmp_path / "new.csv", labels=False)
    outcome = invoke(table, tmp_path / "new.csv", "--batch", 5)
    header, rows = read(outcome.stdout)
    given, cells = read((tmp_path / "new.csv").read_text())
    assert header == [*given, "prediction", "confidence", "p(ant)", "p(bee)", "p(cat)"]
    assert [row[:4] for row in rows] == cells
    assert_rows(rows, perceptron(table, features(table, x)), SPECIES, first=4)
    assert "accuracy" not in outcome.stderr


def test_cells_stay_as_they_are_in_the_file(table, tmp_path):
    """Also what the reader takes for missing, tidies, or leaves out for being empty."""
    text = 'note ; size;weight;species\n"a;  ""b""\nc";1.50;NA;?\n;;;\n\nn/a; 2 ;3e0;\n'
    (tmp_path / "new.csv").write_text("\ufeff" + text, encoding="utf-8")
    header, rows = read(invoke(table, tmp_path / "new.csv").stdout)
    assert header[:4] == ["note", "size", "weight", "species"]
    assert [row[:4] for row in rows] == [['a;  "b"\nc', "1.50", "NA", "?"], ["n/a", "2 ", "3e0", ""]]


def test_names_that_are_taken_get_a_number(table, tmp_path):
    fresh(tmp_path / "new.csv", header="prediction,weight,p(bee),size", cells=("{n}", "{b}", "{n}", "{a}"))
    once = invoke(table, tmp_path / "new.csv").stdout
    added = ["prediction_2", "confidence", "p(ant)", "p(bee)_2", "p(cat)"]
    assert read(once)[0] == ["prediction", "weight", "p(bee)", "size", *added]
    (tmp_path / "again.csv").write_text(once)
    header, rows = read(invoke(table, tmp_path / "again.csv").stdout)
    assert header[9:] == ["prediction_3", "confidence_2", "p(ant)_2", "p(bee)_3", "p(cat)_2"]
    assert [row[:9] for row in rows] == read(once)[1]


def test_several_tables(table, tmp_path):
    """Their columns may stand in another order; the first column says whose row it is."""
    x, _ = fresh(tmp_path / "one.csv", header="name,weight,species,size")
    other, _ = fresh(tmp_path / "two.csv", header="size,weight,name,species", cells=("{a}", "{b}", "{n}", ""), count=4)
    header, rows = read(invoke(table, tmp_path / "one.csv", tmp_path / "two.csv").stdout)
    assert header[:5] == ["name_2", "name", "weight", "species", "size"]
    assert rows[12][:5] == [f"{tmp_path / 'two.csv'}:1", "0", str(other[0, 1]), "", str(other[0, 0])]
    assert_rows(rows, perceptron(table, features(table, np.concatenate([x, other]))), SPECIES, first=5)


def test_tables_with_other_columns_are_refused(table, tmp_path):
    fresh(tmp_path / "one.csv")
    fresh(tmp_path / "two.csv", header="number,weight,species,size")
    with pytest.raises(InputError, match=r"two\.csv has other columns than .*one\.csv: predict the two apart"):
        invoke(table, tmp_path / "one.csv", tmp_path / "two.csv")


@pytest.mark.parametrize("known", [12, 5, 1])
def test_the_accuracy_on_rows_with_a_label(table, tmp_path, known):
    x, species = fresh(tmp_path / "new.csv")
    lines = (tmp_path / "new.csv").read_text().splitlines()
    blanked = [line.replace(species[n], "?") if n >= known else line for n, line in enumerate(lines[1:])]
    (tmp_path / "new.csv").write_text("\n".join([lines[0], *blanked]))
    predicted = perceptron(table, features(table, x)).argmax(1)[:known]
    right = sum(SPECIES[one] == label for one, label in zip(predicted, species, strict=False))
    assert known < 12 or 0 < right < known
    wanted = f"accuracy   {100 * right / known:.2f} % of the {known} that came with a label\n"
    pairs = [(label, SPECIES[one]) for one, label in zip(predicted, species, strict=False)]
    wrong = Counter(f"{label} as {found}" for label, found in pairs if label != found)
    mistakes = ", ".join(f"{count} {mistake}" for mistake, count in wrong.most_common())
    last = f"mistakes   {mistakes}\n" if wrong else ""
    assert invoke(table, tmp_path / "new.csv").stderr.endswith(wanted + last)


def test_a_label_that_is_no_class_is_wrong(table, tmp_path):
    fresh(tmp_path / "new.csv", cells=("{n}", "{b}", "dog", "{a}"))
    assert "accuracy   0.00 % of the 12" in invoke(table, tmp_path / "new.csv").stderr


def test_labels_that_are_numbers(tmp_path):
    """1.0 is the class 1."""
    x, species = rows_of(60)
    lines = [f"{a},{b},{SPECIES.index(label) + 1}" for (a, b), label in zip(x, species, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join(["size,weight,label", *lines]))
    run = run_of(tmp_path / "run", data=str(tmp_path / "train.csv"), labels=12, steps=30)
    for ending in ("", ".0"):
        (tmp_path / "new.csv").write_text("\n".join(["size,weight,label", *(line + ending for line in lines)]))
        outcome = invoke(run, tmp_path / "new.csv")
        rows = read(outcome.stdout)[1]
        right = sum(float(row[2]) == float(row[3]) for row in rows)
        assert 0 < right < 60
        assert f"accuracy   {100 * right / 60:.2f} % of the 60" in outcome.stderr


# ---------------------------------------------------------------- files and errors


def test_a_file_in_place_of_standard_output(digits, tmp_path):
    saved(tmp_path / "some", 3)
    out = tmp_path / "new" / "found.csv"
    outcome = invoke(digits, tmp_path / "some", "--out", out)
    assert outcome.stdout == ""
    assert out.read_bytes() == invoke(digits, tmp_path / "some").stdout_bytes
    assert b"\r" not in out.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["found.csv"]


def test_a_file_is_whole_or_as_it_was(digits, tmp_path, monkeypatch):
    """An image that is damaged, found after some rows."""
    saved(tmp_path / "some", 5)
    (tmp_path / "some" / "03.png").write_text("no image")
    (tmp_path / "found.csv").write_text("precious")
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    with pytest.raises(InputError, match=r"03\.png: no image that can be read .*: remove it"):
        invoke(digits, tmp_path / "some", "--batch", 2, "--out", tmp_path / "found.csv")
    assert (tmp_path / "found.csv").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.csv", "some"]


@pytest.mark.skipif(sys.platform == "win32", reason="names are text there")
def test_a_name_that_is_no_text(digits, tmp_path):
    saved(tmp_path, 1)
    try:
        os.rename(tmp_path / "00.png", os.fsencode(tmp_path) + b"/\xff.png")
    except OSError as error:
        pytest.skip(f"this file system refuses the name: {error}")
    for out in (tmp_path / "found.csv", "-"):
        outcome = invoke(digits, tmp_path, "--out", out)
        found = outcome.stdout_bytes if out == "-" else out.read_bytes()
        assert b"/\xff.png,".join(found.split(b"/\xff.png,")) == found != found.replace(b"\xff", b"")


def test_a_reader_that_stops_early(digits, tmp_path):
    """As `head` does: no traceback."""
    saved(tmp_path, 2)
    code = "import typer; from metapl.cli.predict import predict; typer.run(predict)"
    given = [sys.executable, "-c", code, str(digits), *[str(tmp_path / "00.png")] * 700, "--device", "cpu"]
    with subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"name,")
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere", "x.png"), "nowhere is not a run"),
        (("RUN", "nowhere.png"), r"nowhere\.png does not exist"),
        (("RUN", "x.png"), r"x\.png: no image that can be read"),
        (("RUN", "x.png", "--network", "studnet"), "unknown network 'studnet': did you mean 'student'"),
        (("RUN", "x.png", "--device", "tpu"), "device = tpu"),
    ],
    ids=str,
)
def test_bad_input(digits, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(InputError, match=message) as caught:
        invoke(*(digits if arg == "RUN" else arg for arg in args))
    assert "\n" not in str(caught.value)


def test_a_table_with_a_new_category(tmp_path):
    x, species = rows_of(60)
    lines = [f"{a},{'red' if a > b else 'blue'},{label}" for (a, b), label in zip(x, species, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join(["size,colour,label", *lines]))
    run = run_of(tmp_path / "run", data=str(tmp_path / "train.csv"), labels=12)
    (tmp_path / "new.csv").write_text("size,colour\n1,red\n2,green\n")
    with pytest.raises(InputError, match=r"new\.csv, line 3: column 'colour' has 'green', but the training table had"):
        invoke(run, tmp_path / "new.csv", "--out", tmp_path / "found.csv")
    assert not (tmp_path / "found.csv").exists()
