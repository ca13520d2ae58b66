"""CSV files as columns of text, read so that a doubtful file is refused rather than guessed at."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from metapl.files import storage
from metapl.registry.errors import InputError

DELIMITERS = ",;\t|"
"""What may separate the cells of a row."""

MISSING = frozenset(("", "?", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "NULL", "Null", "null"))
"""The cells that count as empty."""


SAID = re.compile(r'"?sep=([,;|\t])"?[ ,;]*(?:\r\n|\r|\n)', re.IGNORECASE)
"""The first line of files that tell Excel what separates the cells."""

LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
"""A line with its end; no other character ends one."""


class Table(NamedTuple):
    """The texts of a file, with single spaces and none around them; every missing value is the empty text."""

    place: str
    """The file, for messages."""
    columns: dict[str, tuple[str, ...]]
    """The cells of each column by its name, in the order of the file."""
    lines: tuple[int, ...]
    """The line of the file on which each row begins, from 1."""


def load(place: Path, header: bool = True, encoding: str = "") -> Table:
    """Read a CSV file, compressed by gzip or not, whose first line names the columns.

    The delimiter is that of `, ; tab |` which makes the most of the first line. Fields may be quoted as `"a ""b"" c"`.
    Empty lines, and lines of empty fields, are left out. Missing is what is empty or one of `? NA N/A n/a NaN nan NAN
    NULL Null null`.

    Args:
        place: the file.
        header: whether the first line names the columns; without, they are `column1` and so on.
        encoding: of the text; else UTF-8, or UTF-16 where it begins with the mark of that.

    Raises:
        InputError: a file that cannot be read or is not text, no or doubtful names of columns, no rows, rows of another
            length, broken quotes.
    """
    found, delimiter = rows(place, encoding=encoding)
    if not header and found:
        found = [(0, [f"column{number}" for number in range(1, len(found[0][1]) + 1)]), *found]
    return table(place, found, delimiter)


def rows(place: Path, blanks: bool = False, encoding: str = "") -> tuple[list[tuple[int, list[str]]], str]:
    """The rows of a file, each with its line, the first line among them, and what separates the cells.

    Args:
        place: the file.
        blanks: whether cells are separated by blanks, where the first line has nothing else that separates them.
        encoding: as of `load`.

    Raises:
        InputError: a file that cannot be read or is not text, broken quotes.
    """
    text = text_of(place, encoding)
    said = SAID.match(text)
    text = text[said.end() :] if said else text
    delimiter = said.group(1) if said else max(DELIMITERS, key=lambda one: _width(text, one))
    if blanks and _width(text, delimiter) == 1:
        lines = ((number, line.split()) for number, line in enumerate(text.splitlines(), 1))
        return [(number, cells) for number, cells in lines if cells], " "
    try:
        return list(_rows(text, delimiter, 1 if said else 0)), delimiter
    except csv.Error as error:
        raise InputError(f"{place} is not a CSV file ({error}): look for a quote without its partner") from None


def table(place: Path, found: Sequence[tuple[int, list[str]]], delimiter: str) -> Table:
    """The table of rows, of which the first names the columns.

    Raises:
        InputError: no or doubtful names of columns, no rows, rows of another length.
    """
    if len(found) < 2:
        raise InputError(f"{place} has no rows: write the names of the columns in the first line, then a row a line")
    (first, header), *body = _without_ends(found)
    check_header(header, f"{place}, line {first}")
    for line, cells in body:
        if len(cells) != len(header):
            raise InputError(
                f"{place}, line {line} has {len(cells)} values, but line {first} names {len(header)} columns, split at "
                f"{delimiter!r}: correct the line, or quote a value that holds {delimiter!r}"
            )
    columns = {
        name: tuple("" if cells[place] in MISSING else cells[place] for _, cells in body)
        for place, name in enumerate(header)
    }
    return Table(str(place), columns, tuple(line for line, _ in body))


def _without_ends(found: Sequence[tuple[int, list[str]]]) -> Sequence[tuple[int, list[str]]]:
    """Rows without the empty cell behind a delimiter that ends each of them."""
    ended = all(cells and not cells[-1] for _, cells in found) and len({len(cells) for _, cells in found}) == 1
    return [(line, cells[:-1]) for line, cells in found] if ended and len(found[0][1]) > 2 else found


def text_of(place: Path, encoding: str = "") -> str:
    """The text of a file, compressed by gzip or not.

    Args:
        place: the file.
        encoding: as of `load`.

    Raises:
        InputError: a file that cannot be read, or is not text in that encoding.
    """
    try:
        content = storage.read_bytes(place, storage.TEXT)
        if place.suffix.lower() == ".gz":
            content = _unpacked(content, place)
    except OSError as error:
        raise InputError(f"{place} cannot be read ({error.strerror}): give a CSV file, or much data as .npz") from None
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = encoding or ("utf-16" if marked else "utf-8-sig")
    try:
        text = content.decode(encoding)
    except LookupError:
        raise InputError(f"encoding={encoding} is none: give utf-8, utf-16, cp1252, latin-1 or another") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        shown = encoding.removesuffix("-sig").upper()
        raise InputError(
            f"{place}, line {line} is not text in {shown}: save the table as CSV in UTF-8, or give encoding=cp1252 if "
            "that is what it is in"
        ) from None
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        raise InputError(f"{place} is not text: save the table as CSV in UTF-8")
    return text


def _unpacked(content: bytes, place: Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            found = file.read(storage.TEXT + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{place}: damaged or cut short ({error}): fetch or write it again") from None
    if len(found) > storage.TEXT:
        raise InputError(f"{place}: more than {storage.TEXT:,} bytes of text: give less, or much data as .npz")
    return found


def _rows(text: str, delimiter: str, before: int = 0) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold something, each with the line on which it begins; so many lines stand before the text."""
    # Strict, or a quote that nobody closes would swallow the rest of the file without a word.
    lines = (found.group() for found in LINE.finditer(text))  # a StringIO has four bytes for each letter
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    first = before
    for row in reader:
        cells = [" ".join(cell.split()) for cell in row]
        if any(cells):
            yield first + 1, cells
        first = before + reader.line_num


def _width(text: str, delimiter: str) -> int:
    """The number of fields that a delimiter makes of the first line; 0 where it breaks the quotes."""
    try:
        return len(next(_rows(text, delimiter), (0, []))[1])
    except csv.Error:
        return 0


def check_header(names: Sequence[str], where: str) -> None:
    """Check the names of columns.

    Raises:
        InputError: one that is empty or there twice, or numbers that are no names.
    """
    if "" in names:
        at = names.index("") + 1
        pandas = " (pandas writes none with index=False)" if at == 1 else ""
        raise InputError(f"{where}: column {at} has no name: name it, or delete it from the file{pandas}")
    if len(set(names)) < len(names):
        name = next(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f"{where}: two columns are named {name!r}: write a line with a name for each column")
    # Years, wavelengths and pixels are names; what goes up and down is a row of values.
    values = [value for value in map(_number, names) if value is not None]
    if any(one >= other for one, other in itertools.pairwise(values)):
        raise InputError(
            f"{where} has numbers where the columns' names should be: write a line with a name for each column "
            "(names that are numbers must increase)"
        )


def _number(name: str) -> float | None:
    try:
        return float(name)
    except ValueError:
        return None
