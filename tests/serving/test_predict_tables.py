"""`metapl predict` of tables: their own columns, their labels, and what is wrong with a row."""

import csv
import io
from collections import Counter

import numpy as np
import pytest
from predicting import SPECIES, assert_rows, invoke, perceptron, problems, read, rows_of, run_of

from metapl.data.examples import Problems
from metapl.registry.errors import InputError
from metapl.serving import predict
from metapl.training import run_folder

# torch.func.jvp scripts its decompositions when it is first called.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


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
    given, *cells = csv.reader(io.StringIO((tmp_path / "new.csv").read_text()))
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
    kept = ["prediction", "weight", "p(bee)", "size", *added, "problem"]
    assert read(once)[0] == ["prediction", "weight", "p(bee)", "size", *added]
    (tmp_path / "again.csv").write_text(once)
    header, rows = read(invoke(table, tmp_path / "again.csv").stdout)
    assert header == [*kept, "prediction_3", "confidence_2", "p(ant)_2", "p(bee)_3", "p(cat)_2"]
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


def coloured(folder):
    """A run on a table of a number and a category."""
    x, species = rows_of(60)
    lines = [f"{a},{'red' if a > b else 'blue'},{label}" for (a, b), label in zip(x, species, strict=True)]
    (folder / "train.csv").write_text("\n".join(["size,colour,label", *lines]))
    return run_of(folder / "run", data=str(folder / "train.csv"), labels=12)


def test_a_table_with_a_new_category(tmp_path):
    run = coloured(tmp_path)
    (tmp_path / "new.csv").write_text("size,colour\n1,red\n2,green\nx,red\n1e30,blue\n")
    outcome = invoke(run, tmp_path / "new.csv")
    found = problems(outcome.stdout)
    assert [bool(prediction) for _, prediction, _ in found] == [True, True, False, False]
    assert found[0][0] == ""
    assert found[1][0].endswith("new.csv, line 3: column 'colour' has 'green', but the training table had blue, red")
    assert found[2][0].endswith("line 4: column 'size' has 'x', but the training table had numbers")
    assert "line 5: column 'size' has '1e30', but the training table had numbers about" in found[3][0]
    assert "unread     2: " in outcome.stderr
    assert "doubtful   1: " in outcome.stderr


def test_a_new_category_is_none_of_the_others(tmp_path):
    """Its features are zeros: against the network in numpy."""
    run = coloured(tmp_path)
    (tmp_path / "new.csv").write_text("size,colour\n0.5,green\n")
    size = run_folder.serve(run, device="cpu").form.details["columns"][0]
    expected = perceptron(run, np.array([[(0.5 - size["mean"]) / size["std"], 0.0, 0.0]]))
    (row,) = csv.DictReader(io.StringIO(invoke(run, tmp_path / "new.csv").stdout))
    np.testing.assert_allclose([float(row[f"p({name})"]) for name in SPECIES], expected[0], atol=3e-7)


def test_fresh_tables_with_labels_are_evaluated_without_the_rows_that_cannot_be_read(table, tmp_path):
    fresh(tmp_path / "new.csv")
    serving = run_folder.serve(table, device="cpu")
    expected = predict.evaluate(serving, [tmp_path / "new.csv"])
    with (tmp_path / "new.csv").open("a") as file:
        file.write("99,heavy,ant,1\n")
    noted = Problems({}, {})
    assert predict.evaluate(serving, [tmp_path / "new.csv"], problems=noted) == expected
    assert list(noted.unread) == [12]
