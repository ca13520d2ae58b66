"""CSV files and their encoding, against scikit-learn's scalers and encoders and files written by hand."""

import json
import re

import numpy as np
import pytest
import torch
from asserts import assert_refused
from sklearn.datasets import load_breast_cancer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from metapl.data.form import Form
from metapl.data.formats import tables
from metapl.data.formats.cells import parse
from metapl.data.formats.csv_file import Table, load


def table_of(**columns):
    count = len(next(iter(columns.values())))
    return Table("t.csv", {name: tuple(cells) for name, cells in columns.items()}, tuple(range(2, count + 2)))


def texts(values):
    return ["" if np.isnan(value) else repr(float(value)) for value in values]


def form_of(columns):
    """As it comes back from a file."""
    columns = json.loads(json.dumps(columns))
    return Form("table", (len(tables.layout(columns).columns),), ("a", "b"), {"columns": columns, "label": "y"})


# ---------------------------------------------------------------- numbers


def test_numbers_are_standardised_as_by_scikit_learn():
    raw = load_breast_cancer().data
    table = table_of(**{f"x{index}": texts(values) for index, values in enumerate(raw.T)}, y=["a"] * len(raw))
    pool = torch.arange(0, len(raw), 3)
    columns = tables.fit(table, "y", pool=pool)
    expected = StandardScaler().fit(raw[pool]).transform(raw)
    np.testing.assert_allclose(tables.encode(columns, table), expected, rtol=2e-7, atol=1e-7)
    assert [column["name"] for column in columns] == [f"x{index}" for index in range(30)]


def test_missing_numbers_are_the_mean_with_an_indicator():
    raw = np.random.default_rng(0).normal(3.0, 2.0, (60, 3))
    raw[np.random.default_rng(1).random(raw.shape) < 0.3] = np.nan
    raw[:, 1] = np.arange(60) ** 2
    table = table_of(a=texts(raw[:, 0]), b=texts(raw[:, 1]), c=texts(raw[:, 2]), y=["u"] * 60)
    columns = tables.fit(table, "y")
    values = StandardScaler().fit_transform(SimpleImputer().fit_transform(raw))
    # scikit-learn scales after filling in the mean, which shrinks the standard deviation by the share that is known.
    values *= np.sqrt((~np.isnan(raw)).mean(0))
    absent = MissingIndicator(features="all").fit_transform(raw)
    expected = np.column_stack([values[:, 0], absent[:, 0], values[:, 1], values[:, 2], absent[:, 2]])
    np.testing.assert_allclose(tables.encode(columns, table), expected, rtol=1e-6, atol=1e-6)
    assert tables.layout(columns) == ((0, 0, 1, 2, 2), (True, False, True, True, False))


def test_indicators_come_from_the_pool():
    table = table_of(a=["1", "2", "4", ""], b=["", "2", "4", "5"], y=["u"] * 4)
    columns = tables.fit(table, "y", pool=torch.tensor([0, 1, 2]))
    assert [column["missing"] for column in columns] == [False, True]
    found = tables.encode(columns, table)
    assert found[3].tolist() == [0.0, 2.0, 0.0]
    assert found[0, 1:].tolist() == [0.0, 1.0]


def test_few_whole_numbers_stay_a_number():
    columns = tables.fit(table_of(a=["1", "2", "2", "1", "1e0"], y=["u"] * 5), "y")
    assert columns[0] == {"name": "a", "kind": "number", "mean": 1.4, "std": pytest.approx(0.24**0.5), "missing": False}


def test_columns_that_say_nothing_are_left_out():
    """Of equal numbers whose mean is rounded, of no values at all, of one text; of equal numbers with gaps, the gaps
    are left."""
    table = table_of(
        same=["0.1"] * 6,
        none=[""] * 6,
        word=["x"] * 6,
        pool=["3"] * 5 + ["4"],
        late=[""] * 5 + ["4"],
        gaps=["7", "", "7", "7", "", "7"],
        kept=["1", "2", "3", "1", "2", "3"],
        y=["u"] * 6,
    )
    columns = tables.fit(table, "y", pool=torch.arange(5))
    assert [column["name"] for column in columns] == ["gaps", "kept"]
    found = tables.encode(columns, table)
    assert found[:, 0].tolist() == [0, 1, 0, 0, 1, 0]
    assert tables.layout(columns) == ((0, 1), (False, True))
    assert found.shape == (6, 2)


@pytest.mark.parametrize("unit", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_units_do_not_matter(unit):
    values = np.array([1.0, 2.0, 4.0, 8.0, 3.0])
    table = table_of(a=texts(values * unit), y=["u"] * 5)
    found = tables.encode(tables.fit(table, "y"), table)[:, 0]
    np.testing.assert_allclose(found, (values - values.mean()) / values.std(), rtol=1e-6)


# ---------------------------------------------------------------- categories


def test_categories_are_one_hot_as_by_scikit_learn():
    colours = ["red", "blue", "", "red", "zinc", "Blue", "", "10"]
    flags = ["True", "False"] * 4
    table = table_of(colour=colours, flag=flags, y=["u"] * 8)
    columns = tables.fit(table, "y")
    expected = OneHotEncoder(sparse_output=False).fit_transform(np.array([colours, flags], dtype=object).T)
    assert np.array_equal(tables.encode(columns, table), expected)
    assert tables.layout(columns) == ((0,) * 6 + (1,) * 2, (False,) * 8)


def test_categories_come_from_all_rows():
    table = table_of(colour=["red", "blue", "red", "green"], y=["u"] * 4)
    columns = tables.fit(table, "y", pool=torch.arange(2))
    assert columns[0]["categories"] == ["blue", "green", "red"]


def test_one_text_makes_a_column_a_category():
    columns = tables.fit(table_of(a=["1", "2", "few", "2", "1"], y=["u"] * 5), "y")
    assert columns == [{"name": "a", "kind": "category", "categories": ["1", "2", "few"]}]


@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e999", "1,5", "1.2.3", "0x10", "+nan"])
def test_what_is_no_finite_number_is_a_text(text):
    assert parse(text) is None


# ---------------------------------------------------------------- refused columns

NUMBERS = [str(value) for value in range(200)]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            [f"id{value}" for value in range(11)],
            r"line 2: column 'a' has texts such as 'id0', 11 .* 11 rows.* ignore=a",
        ),
        ([f"{value},5" for value in range(40)], r"numbers such as '0,5' in line 2: give decimal=, to read them"),
        ([f"k{value % 101}" for value in range(300)], r"has texts such as 'k0', 101 different ones in 300 .* 100 cat"),
        ([*NUMBERS, "about 7", *NUMBERS], r"but for 1 of 401 cells, 'about 7' in line 202: correct them"),
        (["7", *NUMBERS[8:18], *NUMBERS[:7]], r"column 'a' counts the rows, from 0 to 17: .* ignore=a"),
        (NUMBERS[1:12], r"column 'a' counts the rows, from 1 to 11"),
    ],
)
def test_columns_that_name_the_rows_are_refused(cells, message):
    table = table_of(a=cells, b=["1", *["2"] * (len(cells) - 1)], y=["u"] * len(cells))
    assert_refused("^t.csv.*" + message, tables.fit, table, "y")
    assert [column["name"] for column in tables.fit(table, "y", ["a"])] == ["b"]


@pytest.mark.parametrize(
    "cells",
    [
        [f"id{value}" for value in range(10)],
        [f"id{value % 10}" for value in range(11)],
        [f"k{value % 100}" for value in range(300)],
        NUMBERS[:10],
        [*NUMBERS[:10], "11"],
        [*NUMBERS[:10], "9"],
        ["0", "10", *["5"] * 9],
        [f"{value}.0" for value in range(30)],
    ],
)
def test_columns_that_may_mean_something_are_not(cells):
    assert len(tables.fit(table_of(a=cells, y=["u"] * len(cells)), "y")) == 1


def test_a_table_without_features_is_refused():
    table = table_of(a=["1", "1"], b=["x", "y"], y=["u", "v"])
    assert_refused(r"^t.csv: no column that varies is left beside 'y': add one", tables.fit, table, "y", ["b"])


# ---------------------------------------------------------------- fresh rows

MIXED = "colour;size;weight;y\nred;1.5;;a\nblue;2.5;3;b\n'light, blue';;4;\nred;0.5;9;a\n"


def test_fresh_rows_are_encoded_as_the_training_rows_were(write):
    path = write(MIXED)
    columns = tables.fit(load(path), "y")
    inputs = tables.read(form_of(columns), [path])
    assert torch.equal(inputs.x, tables.encode(columns, load(path)))
    assert inputs.x.dtype == torch.float32
    assert inputs.x.shape == (4, 3 + 2 + 2)
    assert list(inputs.names) == ["row 1", "row 2", "row 3", "row 4"]


def test_the_order_of_columns_others_and_the_label_do_not_matter(write):
    columns = tables.fit(load(write(MIXED)), "y")
    rows = [line.split(";") for line in MIXED.splitlines()]
    other = "\n".join("|".join([row[2], row[1], f"more{row[1]}", row[0]]) for row in rows)
    found = tables.read(form_of(columns), [write(other, "other.csv")]).x
    assert torch.equal(found, tables.encode(columns, load(write(MIXED))))


def test_rows_of_several_files_are_told_apart(write):
    columns = tables.fit(load(write(MIXED)), "y")
    one, two = write("colour,size,weight\nred,1,\nblue,2,3\n", "1.csv"), write("weight,size,colour\n4,,red\n", "2.csv")
    inputs = tables.read(form_of(columns), [one, two])
    assert list(inputs.names) == [f"{one}:1", f"{one}:2", f"{two}:1"]
    parts = [tables.read(form_of(columns), [path]).x for path in (one, two)]
    assert torch.equal(inputs.x, torch.cat(parts))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("violet,1,2", r"line 3: column 'colour' has 'violet', but the training table had 'light, blue', blue, red: c"),
        (",1,2", r"line 3: column 'colour' has no value, but the training table had .*: correct it, or train again"),
        ("red,large,2", r"line 3: column 'size' has 'large', but the training table had numbers: correct it, or leave"),
        ('red,"1,5",2', r"line 3: column 'size' has '1,5', but the training table had numbers"),
        ("red,inf,2", r"line 3: column 'size' has 'inf', but the training table had numbers"),
        ("red,-3e9,2", r"line 3: column 'size' has '-3e9', but the training table had numbers about 1.5: correct it"),
    ],
)
def test_fresh_rows_that_do_not_fit_are_refused(write, row, message):
    form = form_of(tables.fit(load(write(MIXED)), "y"))
    path = write(f"colour,size,weight\nred,1,2\n{row}\n", "new.csv")
    assert_refused(f"^{re.escape(str(path))}, {message}", tables.read, form, [path])


def test_many_known_categories_are_not_all_listed(write):
    table = table_of(a=[f"k{value % 7}" for value in range(30)], y=["u"] * 30)
    form = form_of(tables.fit(table, "y"))
    assert_refused(r"had k0, k1, k2, k3, k4, …: correct it", tables.read, form, [write("a,b\nz,1\n")])


def test_a_column_that_is_not_there_is_refused(write):
    form = form_of(tables.fit(load(write(MIXED)), "y"))
    path = write("colour,size\nred,1\n", "new.csv")
    assert_refused("new.csv has no column 'weight', which the training table had: add it", tables.read, form, [path])
