"""Labels that stand in a column for each class, 1 in one of them, as one column."""

from __future__ import annotations

from collections.abc import Collection

from metapl.data.formats.csv_file import Table
from metapl.data.notes import Note, some

LABEL = "label"
"""What the column that is made of them is called."""

_YES, _NO = frozenset(("1", "1.0")), frozenset(("", "0", "0.0"))


def gathered(table: Table, others: Collection[str]) -> tuple[Table, list[Note]]:
    """A table with one column of labels in place of a column for each class, and what is to be said of it.

    Any other table is as it was: one with other columns, or with two classes in a row. A row of zeros has no label.

    Args:
        table: the table.
        others: its columns that are no classes, such as the one of names.
    """
    classes = [name for name in table.columns if name not in others]
    rows = list(zip(*(table.columns[name] for name in classes), strict=True))
    plain = all(cell in _YES or cell in _NO for cells in rows for cell in cells)
    if len(classes) < 2 or not plain or any(sum(cell in _YES for cell in cells) > 1 for cells in rows):
        return table, []
    labels = (next((name for name, cell in zip(classes, cells, strict=True) if cell in _YES), "") for cells in rows)
    kept = {name: table.columns[name] for name in others}
    text = f"a column for each class, with a 1 in one of them: {some([repr(name) for name in classes], 5)}"
    return table._replace(columns={**kept, LABEL: tuple(labels)}), [Note("labels", text)]
