"""What strangers write, where it would be obeyed: read back by the parsers of those who obey."""

import csv
import io
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from metapl.cli.display import Careful
from metapl.files.escape import cell, code, plain, visible
from metapl.reporting import render
from metapl.reporting.blocks import Head, Section


@given(st.text(st.characters(), max_size=40))
def test_nothing_that_a_terminal_obeys_is_left(text):
    shown = visible(text)
    assert not [one for one in shown if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") and one != "\n"]
    assert visible(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain Größe 日本 ‰", "plain Größe 日本 ‰"),
        ("x\x1b[2J\x1b]0;pwned\x07", r"x\x1b[2J\x1b]0;pwned\x07"),
        ("a\rb\bc\x7f", r"a\rb\x08c\x7f"),
        ("a\nb", "a\nb"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("\x9b31m", r"\x9b31m"),
        ("\udce9", r"\udce9"),
        ("نمی‌خواهم", "نمی‌خواهم"),
    ],
)
def test_what_is_written_out(text, shown):
    assert visible(text) == shown


def _span(text):
    """The content of a code span, by the rules of CommonMark 6.1."""
    fence = re.match("`+", text)[0]
    assert text.endswith(fence)
    inside = text[len(fence) : -len(fence)]
    assert fence not in re.findall("`+", inside)
    return inside[1:-1] if inside[:1] == inside[-1:] == " " and inside.strip() else inside


@given(st.text("ab` |", min_size=1, max_size=12))
def test_a_code_span_holds_what_it_was_given(text):
    found = code(text)
    if text.strip():
        assert _span(found).replace("\\|", "|") == text
    assert not re.search(r"(?<!\\)\|", found)


def test_a_span_is_one_line_without_controls():
    assert code("a\nb\x1b") == r"`a b\x1b`"


def test_marks_of_markdown_are_letters():
    assert plain("# [x](y) <b>\n*z*") == r"\# \[x\](y) \<b\> \*z\*"


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "-", "+"]
)
def test_a_formula_is_a_text(text):
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "-1.5", "+3", "-1e-5", "plain", "a=b", "5", "-inf", " =1", "'=1"])
def test_numbers_and_texts_stay(text):
    assert cell(text) == text


def test_cells_survive_csv():
    file = io.StringIO()
    csv.writer(file).writerow(map(cell, ["=1", "-2", "a,b"]))
    assert next(csv.reader(io.StringIO(file.getvalue()))) == ["'=1", "-2", "a,b"]


# ---------------------------------------------------------------- terminals and pages

EVIL = "x\x1b[2J\x1b]0;pwned\x07"


def printed(*things):
    file = io.StringIO()
    console = Careful(file=file, markup=False, highlight=False, force_terminal=True, width=100)
    for one in things:
        console.print(one)
    return file.getvalue()


@pytest.mark.parametrize("thing", [EVIL, Text(EVIL), "table", "title"])
def test_a_console_writes_controls_out(thing):
    if thing in ("table", "title"):
        wanted, thing = thing, Table(title=EVIL if thing == "title" else None)
        thing.add_column(EVIL if wanted == "table" else "class")
        thing.add_row(EVIL)
    found = re.sub(r"\x1b\[[\d;]*m", "", printed(thing))  # its own colours
    assert "\x1b" not in found
    assert "\x07" not in found
    assert r"x\x1b[2J\x1b]0;pwned" in found


def test_its_own_colours_stay():
    assert "\x1b[31mred" in printed(Text("red", style="red"))


def test_a_page_shows_controls():
    page = render.page(Head("\u202e<b>\x1b", "", {}), [Section('"\x07', [])])
    assert r"<h1>\u202e&lt;b&gt;\x1b</h1>" in page
    assert r'<section id="&#34;\x07"' in page
