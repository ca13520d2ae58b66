"""The same table in every kind of file is the same data."""

import csv
import gzip
import io
import json
import sys

import numpy as np
import pytest
import torch

from metapl.data import inputs
from metapl.data.formats import table_file
from metapl.data.sources import STORED, find
from metapl.registry.errors import InputError
from metapl.serving import predict

load = STORED["table"].load
GENERATOR = np.random.default_rng(0)
ROWS = [
    {
        "a": round(float(GENERATOR.normal()), 4),
        "n": None if row == 7 else int(GENERATOR.integers(50)),
        "colour": ["red", "blü", None][row % 3],
        "label": [None, "x", "y"][row % 3 if row % 5 else 0],
    }
    for row in range(40)
]


def text(delimiter=",", header=True):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    if header:
        writer.writerow(ROWS[0])
    writer.writerows(["" if value is None else value for value in row.values()] for row in ROWS)
    return file.getvalue()


def write(path, ending):
    file = path / f"t.{ending}"
    if ending.endswith("gz"):
        file.write_bytes(gzip.compress(text("\t" if "tsv" in ending else ",").encode()))
    elif ending in ("jsonl", "ndjson"):
        file.write_text("\n\n".join(json.dumps(row) for row in ROWS))
    elif ending in ("csv", "tsv"):
        file.write_text(text("\t" if ending == "tsv" else ","), encoding="utf-8")
    else:
        polars = pytest.importorskip("polars", reason="an optional library")
        frame = polars.DataFrame(ROWS, infer_schema_length=None)
        if ending == "xlsx":
            pytest.importorskip("xlsxwriter", reason="polars writes workbooks with it")
            pytest.importorskip("fastexcel", reason="polars reads workbooks with it")
            frame.write_excel(file)
        else:
            frame.write_parquet(file) if ending == "parquet" else frame.write_ipc(file)
    return file


@pytest.mark.parametrize(
    "ending", ["tsv", "csv.gz", "tsv.gz", "jsonl", "ndjson", "parquet", "feather", "arrow", "xlsx"]
)
def test_every_kind_of_file_is_the_same_data(tmp_path, ending):
    plain, file = load(write(tmp_path, "csv")), write(tmp_path, ending)
    assert find.recognise(file) == "table"
    other = find.load(str(file))
    assert torch.equal(other.x, plain.x)
    assert torch.equal(other.x_test, plain.x_test)
    assert other.form == plain.form
    fresh = inputs.read(plain.form, [file]).x
    assert torch.equal(fresh, inputs.read(plain.form, [tmp_path / "t.csv"]).x)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
def test_encodings(tmp_path, encoding):
    plain = load(write(tmp_path, "csv"))
    (tmp_path / "e.csv").write_bytes(text().encode(encoding))
    marked = encoding.startswith("utf")
    data = load(tmp_path / "e.csv", **({} if marked else {"encoding": encoding}))
    assert torch.equal(data.x, plain.x)
    assert data.form.details.get("reading", {}) == ({} if marked else {"encoding": encoding})
    assert torch.equal(inputs.read(data.form, [tmp_path / "e.csv"]).x, inputs.read(plain.form, [tmp_path / "t.csv"]).x)
    if not marked:
        with pytest.raises(InputError, match=r"line [0-9]+ is not text in UTF-8: .* or give encoding=cp1252"):
            load(tmp_path / "e.csv")
    with pytest.raises(InputError, match="encoding=klingon is none: give utf-8"):
        load(tmp_path / "e.csv", encoding="klingon")


def test_without_a_line_of_names(tmp_path):
    (tmp_path / "t.csv").write_text(text(header=False), encoding="utf-8")
    data = load(tmp_path / "t.csv", header=False, ignore="column3")
    assert [column["name"] for column in data.form.details["columns"]] == ["column1", "column2"]
    assert data.form.details["label"] == "column4"
    assert len(inputs.read(data.form, [tmp_path / "t.csv"]).x) == 40


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"a": 1}\n[1]', r"line 2 is no object of JSON: write one on each line"),
        ("t.jsonl", b'{"a": [1]}', r"line 1: column 'a' holds no single value: leave the column out"),
        ("t.jsonl", b"", r"t.jsonl has no rows"),
        ("t.csv.gz", gzip.compress(b"a,label\n1,2\n" * 99, mtime=0)[:-20], r"t.csv.gz: damaged or cut short"),
        ("t.csv.gz", b"a,b\n1,2", r"t.csv.gz: damaged or cut short"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        load(tmp_path / name)
    assert len(str(raised.value).splitlines()) == 1


def test_what_is_no_parquet_is_refused(tmp_path):
    pytest.importorskip("polars", reason="an optional library")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 or so")
    with pytest.raises(InputError, match=r"t.parquet: cannot be read \(.*\): write it again, or save the table as CSV"):
        load(tmp_path / "t.parquet")


def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    (tmp_path / "t.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"t.parquet: reading it needs polars: pip install 'metapl\[tables\]', or"):
        load(tmp_path / "t.parquet")


def test_a_gzip_that_becomes_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("metapl.files.storage.TEXT", 1000)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,label\n" + b"1,2\n" * 1000))
    with pytest.raises(InputError, match="more than 1,000 bytes of text"):
        load(tmp_path / "t.csv.gz")


def test_dates_and_truth_values_are_texts():
    import datetime  # noqa: PLC0415

    cells = [datetime.date(2024, 1, 2), True, 3, 0.1, float("nan"), None, "  a  b ", "NA"]
    expected = ["2024-01-02", "True", "3", "0.1", "", "", "a b", ""]
    assert [table_file._text(cell) for cell in cells] == expected


def test_predictions_of_other_files_have_their_columns(tmp_path):
    table = table_file.load(write(tmp_path, "jsonl"))
    rows = predict._as_written(tmp_path / "t.jsonl", table, plain=True)
    assert rows[1] == [repr(ROWS[1]["a"]), str(ROWS[1]["n"]), "blü", "x"]


def test_a_workbook_with_several_sheets_is_asked_about(tmp_path):
    polars = pytest.importorskip("polars", reason="an optional library")
    pytest.importorskip("fastexcel", reason="polars reads workbooks with it")
    xlsxwriter = pytest.importorskip("xlsxwriter", reason="polars writes workbooks with it")
    with xlsxwriter.Workbook(str(tmp_path / "t.xlsx")) as book:
        polars.DataFrame({"note": ["hello"]}).write_excel(book, worksheet="readme")
        polars.DataFrame(ROWS, infer_schema_length=None).write_excel(book, worksheet="data")
    with pytest.raises(InputError, match=r"t\.xlsx: has the sheets readme, data: say which with sheet=NAME"):
        load(tmp_path / "t.xlsx")
    with pytest.raises(InputError, match=r"unknown sheet of .*'dat'"):
        load(tmp_path / "t.xlsx", sheet="dat")
    found, plain = load(tmp_path / "t.xlsx", sheet="data"), load(write(tmp_path, "csv"))
    assert torch.equal(found.x, plain.x)
    assert torch.equal(
        inputs.read(found.form, [tmp_path / "t.xlsx"]).x, inputs.read(plain.form, [tmp_path / "t.csv"]).x
    )
