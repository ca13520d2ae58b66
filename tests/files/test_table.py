"""A table as data, and its three ways out: Markdown, the terminal, a page."""

import io
import math

from markup import cells, parse
from rich.console import Console

from metapl.cli.tables import printed
from metapl.files import table
from metapl.files.table import Column, Table
from metapl.reporting import render
from metapl.reporting.blocks import Head, Rows, Section

COLUMNS = (
    Column("name", look="name"),
    Column("top-1 %", table.percent, "figure"),
    Column("gap", lambda pair: f"{pair[0]} to {pair[1]}", "figure"),
    Column("why"),
)
ROWS = [("a|b <i>", 0.71875, (1, 2), "x"), ("c", math.nan, None, "–")]
TABLE = Table(COLUMNS, ROWS, "numbers", chosen=1)
TEXTS = [["a|b <i>", "71.88", "1 to 2", "x"], ["c", "–", "", "–"]]


def test_values_are_written_by_their_columns():
    assert TABLE.titles == ["name", "top-1 %", "gap", "why"]
    assert TABLE.cells == TEXTS
    assert table.text(COLUMNS[2], "reference") == "reference"


def test_columns_can_be_left_out():
    fewer = TABLE.without("top-1 %", "why")
    assert fewer.titles == ["name", "gap"]
    assert fewer.cells == [[row[0], row[2]] for row in TEXTS]
    assert (fewer.label, fewer.chosen) == ("numbers", 1)


def test_markdown():
    assert table.markdown(TABLE).splitlines() == [
        "| name | top-1 % | gap | why |",
        "| --- | --- | --- | --- |",
        r"| a/b \<i> | 71.88 | 1 to 2 | x |",
        "| c | – |  | – |",
    ]


def test_all_three_show_the_same():
    page = parse(render.page(Head("t", "", {}), [Section("s", [Rows(TABLE)])]))
    assert cells(page, "numbers") == [TABLE.titles, *TEXTS]
    assert page.one("tr", class_="chosen").one("th").text == "c"
    assert [one.text for one in page.all("td", class_="figure")] == ["71.88", "1 to 2", "–", ""]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(printed(TABLE, "title"))
    title, _, head, _, *body, _ = console.export_text().splitlines()
    assert title.strip() == "title"
    assert [cell.strip() for cell in head.strip("┃").split("┃")] == TABLE.titles
    assert [[cell.strip() for cell in line.strip("│").split("│")] for line in body] == TEXTS
    assert body[1].index("–") == body[0].index("71.88") + 4  # figures stand to the right


def test_numbers_are_written_in_one_way():
    shares = (0.12345, -0.001, -0.00001, math.nan)
    assert [table.percent(share) for share in shares] == ["12.35", "−0.10", "0.00", "–"]
    assert [table.percent(share, 1) for share in (-0.001, -0.0001)] == ["−0.1", "0.0"]
    assert [table.number(-1234.5, 1), table.number(0.0004), table.number(math.nan)] == ["−1,234.5", "0.000", "–"]
    assert [table.plus(text) for text in ("1.2", "−1.2", "0.00", "–", "10.0")] == ["+1.2", "−1.2", "0.00", "–", "+10.0"]
    assert table.whole(12345) == "12,345"
