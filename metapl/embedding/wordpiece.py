"""Texts as word pieces, as BERT without capitals has them.

Examples:
    >>> from metapl.embedding.wordpiece import pieces, words
    >>> words("Don't  panic!")
    ['don', "'", 't', 'panic', '!']
    >>> pieces("panicking", {"panic", "##k", "##ing"}, "[UNK]")
    ['panic', '##k', '##ing']
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

LONGEST = 100
"""Letters of a word; a longer one is unknown."""

CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
"""Blocks of letters that are words each."""


def words(text: str) -> list[str]:
    """The words and marks of a text, in small letters without accents; control characters are dropped."""
    # In the order of the published tokeniser: where a small letter has an accent of its own, it stays.
    parts = unicodedata.normalize("NFD", "".join(map(_clean, text)))
    small = "".join(letter for letter in parts if unicodedata.category(letter) != "Mn").lower()
    return "".join(f" {letter} " if _is_mark(letter) else letter for letter in small).split()


def _clean(letter: str) -> str:
    if letter in "\t\n\r":
        return " "
    if letter == "\ufffd" or unicodedata.category(letter) in ("Cc", "Cf", "Co"):
        return ""
    if letter.isspace():
        return " "
    return f" {letter} " if any(low <= ord(letter) <= high for low, high in CHINESE) else letter


def _is_mark(letter: str) -> bool:
    ascii_mark = letter.isascii() and letter.isprintable() and not letter.isalnum() and letter != " "
    return ascii_mark or unicodedata.category(letter).startswith("P")


def pieces(word: str, known: Collection[str], unknown: str) -> list[str]:
    """The longest known piece at the beginning, then that of the rest, and so on; `unknown` where one is missing.

    Pieces within a word begin with `##`. Wu et al., "Google's Neural Machine Translation System", 2016.
    """
    if len(word) > LONGEST:
        return [unknown]
    found: list[str] = []
    start = 0
    while start < len(word):
        mark = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if mark + word[start:end] in known), 0)
        if not end:
            return [unknown]
        found.append(mark + word[start:end])
        start = end
    return found
