"""Odd cells among numbers, decimal commas, sentinels, and what is said of each column."""

import csv
import json

import numpy as np
import pytest
import torch

from metapl.data import inputs
from metapl.data.form import Form
from metapl.data.formats import cells, column_notes
from metapl.data.notes import CAREFUL, COLUMN
from metapl.data.sources import STORED, find
from metapl.registry.errors import InputError
from metapl.training import run_files

GENERATOR = np.random.default_rng(0)
AGES = [str(age) for age in GENERATOR.integers(18, 90, 200)]


def load(path, ages, delimiter=",", header=("age", "b", "label"), **options):
    with (path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows([age, index * 3 % 7, "xy"[index % 2]] for index, age in enumerate(ages))
    return STORED["table"].load(path / "t.csv", **options)


def column(data, name="age"):
    return next(one for one in data.form.details["columns"] if one["name"] == name)


def said(data, about):
    return [note.text for note in data.notes if note.about == about]


# ---------------------------------------------------------------- odd cells


@pytest.mark.parametrize("word", ["-", "None", "none", "#N/A", "n.a.", "missing", ".", "unknown", "<NA>", "--", "nil"])
@pytest.mark.parametrize("most", [200, 6])
def test_a_word_for_no_value_is_a_missing_number(tmp_path, word, most):
    """Whether the numbers are many or few."""
    ages = [str(int(age) % most) for age in AGES]
    data = load(tmp_path, [ages[0], word, *ages[2:]])
    empty = load(tmp_path, [ages[0], "", *ages[2:]])
    assert column(data) == column(empty)
    assert torch.equal(data.x, empty.x)
    load(tmp_path, [ages[0], word, *ages[2:]])
    assert any(f"1 missing ('{word}' in line 3)" in text for text in said(data, COLUMN))


@pytest.mark.parametrize("odd", ["inf", "90+", "about 7", "1e999", "12 kg"])
@pytest.mark.parametrize("most", [200, 6])
def test_other_cells_among_numbers_are_named_with_their_lines(tmp_path, odd, most):
    ages = [str(int(age) % most) for age in AGES]
    given = [*ages[:7], odd, *ages[8:]]
    with pytest.raises(InputError, match=r"'age' is numbers but for 1 of 200 cells, .* in line 9: correct") as raised:
        load(tmp_path, given)
    assert f"missing={odd} if they are no values, or category=age" in str(raised.value)
    assert torch.equal(load(tmp_path, given, missing=odd).x, load(tmp_path, [*ages[:7], "", *ages[8:]]).x)
    assert len(column(load(tmp_path, given, category="age"))["categories"]) == len(set(given))


@pytest.mark.parametrize(
    "values",
    [["2", "3", "4", "5more"], ["0", "1", "2", "3", "4+"], ["low", "high"], ["none", "mild"], ["A1", "A2", "7"]],
)
def test_categories_with_numbers_among_them_stay_categories(tmp_path, values):
    data = load(tmp_path, values * 20)
    assert column(data) == {"name": "age", "kind": "category", "categories": sorted(values)}


@pytest.mark.parametrize(
    ("write", "option", "read"),
    [
        (lambda age: f"{age // 10},{age % 10}", {"decimal": ","}, lambda age: age / 10),
        (lambda age: f"1.{age:03d},5", {"decimal": ""}, lambda age: 1000.5 + age),
        (lambda age: f"{age}%", {"percent": True}, float),
        (lambda age: f"{age},5 %", {"decimal": ",", "percent": True}, lambda age: age + 0.5),
    ],
)
def test_numbers_in_other_spellings(tmp_path, write, option, read):
    texts = [write(int(age)) for age in AGES]
    with pytest.raises(InputError, match=r"column 'age' has (numbers such as|texts such as)"):
        load(tmp_path, texts, ";")
    data = load(tmp_path, texts, ";", **option)
    np.testing.assert_allclose(data.x, load(tmp_path, [repr(read(int(age))) for age in AGES]).x, atol=1e-6)


def test_the_options_as_they_are_typed(tmp_path):
    """A comma separates the options too."""
    load(tmp_path, [f"{age},5" for age in AGES], ";", decimal=",")
    with pytest.raises(InputError, match="give decimal=, to read them"):
        find.load(f"{tmp_path}/t.csv")
    data = find.load(f"{tmp_path}/t.csv:decimal=,,missing=-999/?")
    assert column(data)["kind"] == "number"


def test_a_decimal_is_a_point_or_a_comma(tmp_path):
    with pytest.raises(InputError, match="decimal=; must be a point or a comma"):
        load(tmp_path, AGES, decimal=";")


def test_fresh_rows_are_read_in_the_same_way(tmp_path):
    """And the form comes back from a file."""
    texts = [f"{age},5%" for age in AGES[:-1]] + ["-999"]
    data = load(tmp_path, texts, ";", decimal=",", percent=True, missing="-999")
    saved = json.loads(json.dumps(data.form._asdict()))
    form = run_files.form({**saved, "shape": list(saved["shape"])}, "here")
    assert form == Form(*data.form)
    (tmp_path / "new.csv").write_text("age;b\n30,5%;1\n-999;2\n-;3\n")
    found = inputs.read(form, [tmp_path / "new.csv"]).x
    kept = column(data)
    assert float(found[0, 0]) == pytest.approx((30.5 - kept["mean"]) / kept["std"], rel=1e-6)
    assert found[:, 1].tolist() == [0, 1, 1]


def test_a_table_without_options_is_saved_as_ever(tmp_path):
    assert load(tmp_path, AGES).form.details.keys() == {"columns", "label"}


# ---------------------------------------------------------------- sentinels


@pytest.mark.parametrize("value", ["-999", "99999999", "1e308", "-1e30", "9999"])
def test_sentinels_are_warned_of(tmp_path, value):
    given = [value if index % 20 == 3 else age for index, age in enumerate(AGES)]
    (warning,) = said(load(tmp_path, given), CAREFUL)
    assert warning.startswith("column 'age': 10 cells are")
    remedy = warning.rpartition("missing=")[2]
    assert float(remedy) == float(value)
    assert torch.equal(load(tmp_path, given, missing=remedy).x, load(tmp_path, [a * (a != value) for a in given]).x)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4, 5], []),
        ([0, 0, 0, 1], []),
        (list(range(90, 100)), []),
        ([1, 2, 3, 4, 30], []),
        ([1, 2, 3, 4, 300], [300]),
        ([*range(100), -999, -999, 999], [999, -999]),
        ([*range(900), -999], [-999]),
        ([5.0] * 9, []),
        ([*range(100, 150), -1, -1], [-1]),
        ([-1, 0, 1, 2], []),
        ([*range(12), -9, -9], []),
        ([*range(8), -9, -9], [-9]),
        ([-3, -1, *range(100, 150)], []),
    ],
)
def test_what_is_far_from_all_others(values, expected):
    assert sorted(value for value, _ in column_notes.sentinels(np.array(values, float))) == sorted(expected)


# ---------------------------------------------------------------- what is said


def test_every_column_is_spoken_of(tmp_path):
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "d", "e", "label"])
        writer.writerows([index * 7 % 11, "uvw"[index % 3], "k", "", index, "xy"[index % 2]] for index in range(30))
    data = STORED["table"].load(tmp_path / "t.csv", ignore="e")
    assert said(data, COLUMN) == [
        "'a': number, 0 to 10",
        "'b': category of 3: 'u', 'v', 'w'",
        "'c': constant, left out",
        "'d': empty, left out",
        "'e': ignored",
        "'label': label, 2 classes",
    ]
    assert said(data, "columns") == ["1 number, 1 category, 1 constant, 1 empty, 1 ignored, 1 label"]
    assert said(data, "label") == ["'label', by its name: 2 classes, 'x', 'y'"]


@pytest.mark.parametrize(
    ("header", "taken", "other"),
    [("class,fare,survived", "class", "survived"), ("species,length,sensor", "sensor", "species")],
)
def test_a_guessed_label_is_shown_beside_what_else_it_may_be(tmp_path, header, taken, other):
    rows = [f"{'123'[index % 3]},{index * 7 % 101 / 3:.3f},{index // 2 % 2}" for index in range(60)]
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
    data = STORED["table"].load(tmp_path / "t.csv")
    assert data.form.details["label"] == taken
    assert said(data, CAREFUL) == [f"the label may also be '{other}': label={other} if it is"]
    assert not said(STORED["table"].load(tmp_path / "t.csv", label=taken), CAREFUL)


def test_coordinates_are_asked_about(tmp_path):
    rows = [f"{index * 7 % 13},{index * 5 % 11},{'ab'[index % 2]}" for index in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["x,Y,kind", *rows]))
    with pytest.raises(InputError, match=r"'x' and 'Y' may be coordinates: give label=kind if they are, or label=Y"):
        STORED["table"].load(tmp_path / "t.csv")
    assert STORED["table"].load(tmp_path / "t.csv", label="kind").form.classes == ("a", "b")


def test_a_column_that_goes_one_way_is_warned_of(tmp_path):
    times = [f"{index + index % 3 / 10:.1f}" for index in range(60)]
    (warning,) = said(load(tmp_path, times), CAREFUL)
    assert "goes one way from row to row" in warning
    assert "ignore=age" in warning


@pytest.mark.parametrize("text", ["", "1", "a", "1.5", "1,5", "1.000", "-1.234.567,25", "1,5e3", "12,", "12,5,6"])
def test_decimal_commas(text):
    expected = {"1,5": "1.5", "1.000": "1000", "-1.234.567,25": "-1234567.25", "1,5e3": "1.5e3"}
    assert cells.without_comma(text) == expected.get(text, text)


@pytest.mark.parametrize("codes", [["3_1", "3_2", "12_1"], ["2020_01", "2020_02", "7"]])
def test_codes_with_an_underscore_are_no_numbers(tmp_path, codes):
    """Python reads 3_1 as 31."""
    data = load(tmp_path, codes * 20)
    assert column(data)["kind"] == "category"
    assert cells.parsed(codes[:1]) == [cells.number(codes[0])] == [None]
    assert np.isnan(cells.numbers(codes[:2])).all()
