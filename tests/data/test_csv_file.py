"""CSV files: dialects, quotes, what is missing, and what is refused."""

import csv
import re

import pytest
from asserts import assert_refused

from metapl.data.formats.csv_file import Table, load

# ---------------------------------------------------------------- files


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_every_dialect_gives_the_same_table(write, delimiter, ending, start):
    rows = [["size", "colour"], ["1.5", "blue"], ["", "red"]]
    path = write(start + ending.join(delimiter.join(row) for row in rows).encode())
    assert load(path) == Table(str(path), {"size": ("1.5", ""), "colour": ("blue", "red")}, (2, 3))


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_quoted_fields_hold_anything(tmp_path, quoting, delimiter):
    """Written by Python's csv module: other delimiters, quotes and umlauts in names and values."""
    names = ["a, b; c|d", 'the "size"', "Größe"]
    rows = [("1; 2", 'so-called "x"', "ä,ö|ü"), ("3", "tab\tin it", "–")]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting)
        writer.writerows([names, *rows])
    columns = load(tmp_path / "t.csv").columns
    assert list(columns) == names
    assert list(zip(*columns.values(), strict=True)) == [rows[0], ("3", "tab in it", "–")]


def test_the_first_line_decides_on_the_delimiter(write):
    assert load(write("a;b;c\n1,5,2;x,y;3\n")).columns == {"a": ("1,5,2",), "b": ("x,y",), "c": ("3",)}
    assert list(load(write('"a";"b, c"\n1;2\n')).columns) == ["a", "b, c"]


def test_what_is_missing(write):
    missing = [" NA", "nan", "null", "?", '""', "NaN", "N/A", "  "]
    known = ["Na", "none", "0", "-", "nano"]
    path = write("a,b\n" + "".join(f"{text},x\n" for text in missing + known))
    assert load(path).columns["a"] == ("",) * len(missing) + tuple(known)


def test_rows_know_their_lines(write):
    """Empty lines, lines of empty fields, and a value that goes over two lines."""
    lines = ["", "a,b", "1,x", "", "   ", '2,"two', 'lines"', ",", ' , ""', "3,z"]
    table = load(write("\n".join(lines)))
    assert table.columns == {"a": ("1", "2", "3"), "b": ("x", "two lines", "z")}
    assert table.lines == (3, 6, 10)


@pytest.mark.parametrize("names", ["0,1,2,label", "400.5,401,402.25,label", "year 1,2019,2020,label"])
def test_names_that_are_numbers_may_increase(write, names):
    assert list(load(write(names + "\n5,6,7,x\n")).columns) == names.split(",")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"has no rows: write the names"),
        ("\n\n", r"has no rows"),
        ("a,b\n", r"has no rows"),
        ("a,b\n1,2\n\n1,2,3\n", r"line 4 has 3 values, but line 1 names 2 columns, split at ','"),
        ("a;b\n1\n", r"line 2 has 1 values, but line 1 names 2 columns, split at ';'"),
        ("a,,b\n1,2,3\n", r"line 1: column 2 has no name: name it, or delete it"),
        (",a\n0,2\n", r"line 1: column 1 has no name: .* \(pandas writes none with index=False\)$"),
        ("a,b,\n1,2,\n3,4,5\n", r"line 1: column 3 has no name: name it, or delete it from the file$"),
        ('a,b,"\na"\n1,2,3\n', r"line 1: two columns are named 'a'"),
        ("5.1,3.5,1.4,0.2,Iris-setosa\n4.9,3.0,1.4,0.2,Iris-setosa\n", r"line 1 has numbers where .* names"),
        ("39, State-gov, 77516, 13\n50, Private, 83311, 13\n", r"line 1 has numbers where .* names"),
        ('a,b\n1,"open\n2,3\n', r"is not a CSV file \(.*\): look for a quote"),
        ('a,b\n1,"x"y\n', r"is not a CSV file \(.*\): look for a quote"),
        pytest.param("a,b\n1," + 200_000 * "x" + "\n", r"is not a CSV file \(field larger", id="long"),
        (b"a,b\n1,2\n3,\xfcber\n", r"line 3 is not text in UTF-8: save"),
        ("a,b\n1,2\n".encode("utf-16-le"), r"is not text: save"),
    ],
)
def test_doubtful_files_are_refused(write, content, message):
    path = write(content)
    assert_refused(f"^{re.escape(str(path))}.*{message}", load, path)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    assert_refused("none.csv cannot be read .*: give a CSV file", load, tmp_path / "none.csv")
    assert_refused("cannot be read .*: give a CSV file", load, tmp_path)


@pytest.mark.parametrize("ending", [",", ";"])
def test_a_delimiter_at_the_end_of_every_line_ends_no_cell(write, ending):
    with_end = load(write(f"a{ending}b{ending}\n1{ending}2{ending}\n3{ending}4{ending}\n".encode()))
    assert with_end.columns == {"a": ("1", "3"), "b": ("2", "4")}
    assert with_end.lines == (2, 3)
