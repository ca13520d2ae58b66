"""One's own tables as a data source, on scikit-learn's data sets written as CSV with most labels blanked."""

import json

import numpy as np
import pytest
import torch
from asserts import assert_refused
from own_tables import DIAGNOSES, KNOWN, RAW, small, write
from sklearn.metrics import pairwise_distances_argmin
from sklearn.preprocessing import StandardScaler

from metapl.core import rng
from metapl.data.formats import tables
from metapl.data.sources import STORED

table, is_table = STORED["table"].load, STORED["table"].recognise


# ---------------------------------------------------------------- the whole


def test_breast_cancer_comes_back_whole(cancer):
    """Every row once, standardised over the pool, with its label where there is one; a fifth of those is the test."""
    data = table(cancer)
    held = [round(0.2 * (KNOWN & (name == DIAGNOSES)).sum()) for name in ("benign", "malignant")]
    assert torch.bincount(data.y_test).tolist() == held
    assert data.form.classes == ("benign", "malignant")
    assert data.form.shape == (30,)
    assert data.form.kind == "table"
    assert len(data.x) == 569 - sum(held)
    assert int((data.y >= 0).sum()) == 57 - sum(held)

    x, y = torch.cat([data.x, data.x_test]).double().numpy(), torch.cat([data.y, data.y_test]).numpy()
    columns = data.form.details["columns"]
    values = x * [column["std"] for column in columns] + [column["mean"] for column in columns]
    row = pairwise_distances_argmin(values, RAW.data)
    assert sorted(row) == list(range(569))
    np.testing.assert_allclose(values, RAW.data[row], rtol=1e-4, atol=1e-6)
    assert np.array_equal(y, np.where(KNOWN, RAW.target == 0, -1)[row])
    pool = row[: len(data.x)]
    np.testing.assert_allclose(StandardScaler().fit_transform(RAW.data[pool]), data.x, rtol=1e-5, atol=1e-6)


def test_a_source_keeps_to_its_types(cancer):
    data = table(cancer)
    assert data.x.dtype == data.x_test.dtype == torch.float32
    assert data.y.dtype == data.y_test.dtype == torch.int64
    assert torch.equal(data.augment.weak(data.x, rng.key(0)), data.x)
    assert data.augment.strong(data.x, rng.key(0)).shape == data.x.shape
    assert json.loads(json.dumps(data.form.details)) == data.form.details
    assert data.form.details["label"] == "diagnosis"


def test_the_saved_form_reads_the_same_rows(cancer):
    data = table(cancer)
    again = tables.read(data.form._replace(details=json.loads(json.dumps(data.form.details))), [cancer]).x
    rows = {tuple(row) for row in again.tolist()}
    assert {tuple(row) for row in torch.cat([data.x, data.x_test]).tolist()} == rows


def test_the_test_part_is_the_same_every_time(cancer):
    one, other = table(cancer), table(cancer)
    assert torch.equal(one.x_test, other.x_test)
    assert len(table(cancer, test=0.5).y_test) > 2 * len(one.y_test)
    assert_refused("test=1.0 must be a share", table, cancer, test=1.0)


def test_the_test_part_does_not_set_the_scale(tmp_path):
    """Moving the rows that are held out leaves the features of the pool as they are."""
    labels = ["a", "b"] * 20
    first = table(small(tmp_path, labels), test=0.3)
    sizes = {float(size) for size in np.arange(40) ** 2}
    column = first.form.details["columns"][0]
    held = {round(value) for value in (first.x_test[:, 0].double() * column["std"] + column["mean"]).tolist()}
    assert held <= sizes
    rows = [[1e6 if i**2 in held else i**2, "red" if i % 3 else "blue", -i, y] for i, y in enumerate(labels)]
    moved = table(write(tmp_path / "moved.csv", ["size", "colour", "weight", "y"], rows), test=0.3)
    assert torch.equal(first.x, moved.x)
    assert bool((moved.x_test[:, 0] > 100).all())


def test_unlabelled_rows_set_the_scale_too(tmp_path):
    data = table(small(tmp_path, ["a", "b", "a", "b"] + [""] * 16))
    assert float(data.x[:, 0].mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(data.x[:, 0].std(correction=0)) == pytest.approx(1.0, abs=1e-6)
    assert len(data.x) == 18


def test_a_category_may_occur_in_the_test_part_only(tmp_path):
    """In whichever row it is, it has a feature of its own; a quarter of the rows are the test."""
    tested = 0.0
    for odd in range(16):
        rows = [["violet" if index == odd else ("red", "blue")[index % 3 > 0], "ab"[index % 2]] for index in range(16)]
        data = table(write(tmp_path / "t.csv", ["colour", "y"], rows), test=0.25)
        assert data.form.details["columns"][0]["categories"] == ["blue", "red", "violet"]
        assert float(torch.cat([data.x, data.x_test])[:, 2].sum()) == 1.0
        tested += float(data.x_test[:, 2].sum())
    assert tested == 4.0


def test_quotes_semicolons_gaps_and_categories_together(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text(
        '\ufeff"age";"home; town";"income";"Class"\r\n'
        '30;"Saint ""Malo""";1000;yes\r\n'
        '40;"a; b";;no\r\n'
        "\r\n"
        '50;?;3000;"yes"\r\n'
        '60;"a; b";NA;no\r\n'
        '70;"a; b";2000;\r\n',
        encoding="utf-8",
    )
    other = tmp_path / "other.csv"
    other.write_text("Class,home; town,income,age\nyes,a; b,5000,50\n,a; b,1,1\n")
    data = table(path, test_file="other.csv")
    std = 200.0**0.5
    ages = [-20 / std, -10 / std, 0, 10 / std, 20 / std]
    towns = [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 0, 1]]
    incomes = [[-(1.5**0.5), 0], [0, 1], [1.5**0.5, 0], [0, 1], [0, 0]]
    expected = [[age, *town, *income] for age, town, income in zip(ages, towns, incomes, strict=True)]
    np.testing.assert_allclose(data.x, expected, atol=1e-6)
    assert data.y.tolist() == [1, 0, 1, 0, -1]
    assert data.form.classes == ("no", "yes")
    np.testing.assert_allclose(data.x_test, [[0, 0, 0, 1, 3000 / (2e6 / 3) ** 0.5, 0]], rtol=1e-6)
    assert data.y_test.tolist() == [1]


# ---------------------------------------------------------------- a test of its own


def test_a_test_file_leaves_the_pool_whole(tmp_path, cancer):
    """Beside the table or by its absolute path, with columns in another order and rows without a label."""
    header = ["diagnosis", *RAW.feature_names[::-1], "note"]
    rows = [[name, *map(float, row[::-1]), "x"] for row, name in zip(RAW.data, DIAGNOSES, strict=True)]
    rows[5][0] = rows[8][0] = ""
    path = write(tmp_path / "test.csv", header, rows, ";")
    write(cancer.parent / "beside.csv", header, rows, ";")
    data, same = table(cancer, test_file=str(path)), table(cancer, test_file="beside.csv")
    assert torch.equal(data.x_test, same.x_test)
    assert len(data.x) == 569
    assert int((data.y >= 0).sum()) == 57
    kept = [index for index in range(569) if index not in (5, 8)]
    assert torch.equal(data.x_test, data.x[kept])
    assert data.y_test.tolist() == [int(RAW.target[index] == 0) for index in kept]
    np.testing.assert_allclose(data.x, StandardScaler().fit_transform(RAW.data), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("size,colour,weight\n1,red,2\n", r"test.csv has no column 'y' with the labels: add it"),
        ("size,colour,weight,y\n1,red,2,\n", r"test.csv: no row has a label in 'y', so that nothing can be tested"),
        ("size,colour,weight,y\n1,red,2,c\n", r"test.csv, line 2: class 'c' is not in the training table \(a, b\): c"),
        ("size,colour,weight,y\n1,violet,2,a\n", r"test.csv, line 2: column 'colour' has 'violet'"),
        ("size,colour,y\n1,red,a\n", r"test.csv has no column 'weight'"),
    ],
)
def test_test_files_that_do_not_fit_are_refused(tmp_path, content, message):
    (tmp_path / "test.csv").write_text(content)
    assert_refused(message, table, small(tmp_path, ["a", "b"] * 6), test_file="test.csv")


def test_a_test_file_that_is_not_there_is_refused(tmp_path):
    assert_refused("none.csv cannot be read", table, small(tmp_path, ["a", "b"] * 6), test_file="none.csv")


# ---------------------------------------------------------------- recognised


@pytest.mark.parametrize(("name", "expected"), [("a.csv", True), ("b.TSV", True), ("c.txt", False), ("d", False)])
def test_a_table_is_recognised_by_its_name(tmp_path, name, expected):
    (tmp_path / name).write_text("")
    assert is_table(tmp_path / name) is expected
    assert not is_table(tmp_path / f"other{name}")


def test_a_folder_is_no_table(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    assert not is_table(tmp_path / "folder.csv")
