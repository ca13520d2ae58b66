"""Tables in the terminal."""

from __future__ import annotations

from rich.table import Column as Printed
from rich.table import Table as Terminal

from metapl.files.table import Table


def printed(table: Table, title: str = "", whole_names: bool = False) -> Terminal:
    """A table for a console of rich: figures to the right.

    Args:
        table: its columns and rows.
        title: above it.
        whole_names: whether the first column keeps its names in one line.
    """
    columns = [
        Printed(column.title, justify="right" if column.look == "figure" else "left", no_wrap=whole_names and not place)
        for place, column in enumerate(table.columns)
    ]
    shown = Terminal(*columns, title=title or None, title_justify="left")
    for row in table.cells:
        shown.add_row(*row)
    return shown
