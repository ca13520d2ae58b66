r"""Text of strangers where something reads more in it than its letters: terminals, pages, Markdown, spreadsheets.

Examples:
    >>> from metapl.files import escape
    >>> escape.visible("red\x1b[2J")
    'red\\x1b[2J'
    >>> escape.code("a`b")
    '``a`b``'
    >>> [escape.cell(text) for text in ("=1+1", "-1.5", "plain")]
    ["'=1+1", '-1.5', 'plain']
"""

from __future__ import annotations

import re
import unicodedata

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode that a terminal obeys or nobody sees: controls, directions, lone surrogates, line ends."""

JOINERS = "\u200c\u200d"
"""Of these, what words of some languages need."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What makes a spreadsheet take a cell for a formula."""


def visible(text: str) -> str:
    r"""Text with everything that is no letter, mark, number, sign or space written out, as `\x1b`; ends of lines stay.

    A terminal obeys what is written out here, and a page may show its text in another order.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if _seen(one) else one.encode("unicode_escape").decode() for one in text)


def _seen(one: str) -> bool:
    return one == "\n" or one in JOINERS or unicodedata.category(one) not in HIDDEN


def code(text: str) -> str:
    """Text as a code span of Markdown in one line, whatever is in it; it may stand in a table."""
    line = " ".join(visible(text).split("\n")).replace("|", "\\|")
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    # A span takes one space off each end where both have one, so that a backtick can stand there.
    inside = f" {line} " if not line.strip() or {line[0], line[-1]} & {"`", " "} else line
    return f"{fence}{inside}{fence}"


def plain(text: str) -> str:
    """Text in one line without the marks of Markdown and HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|&])", r"\\\1", " ".join(visible(text).split()))


def in_table(text: str) -> str:
    """Text as a cell of a Markdown table: in one line, without elements of HTML."""
    return " ".join(visible(text).splitlines()).replace("|", "/").replace("<", "\\<")


def cell(text: str) -> str:
    """Text as a cell that no spreadsheet runs: an apostrophe before what would begin a formula; numbers stay."""
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
