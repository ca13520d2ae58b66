"""A picture of what whole steps cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from metapl.files.storage import write
from metapl.reporting.drawing import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES = {
    "operations": ("flops_ratio", "operations, over those of first-order"),
    "time": ("time_ratio", "time, over that of first-order"),
    "memory": ("memory_ratio", "memory, over that of first-order"),
}
"""A column of panels each: the field of a row, and what stands below."""

PANEL, NAMES, LINE, FRAME = 3.2, 2.0, 0.3, 0.75
"""Widths of a panel and of the names, heights of a line and of what is above and below the bars, in inches."""


def step_costs(scenes: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Operations, time and memory of each step, over those of the paper's; a row of panels for each network.

    Args:
        scenes: as `metapl bench --json` writes them, one at least.
        path: the PNG to write.
    """
    heights = [FRAME + LINE * len(scene["rows"]) for scene in scenes]
    figure = Figure(figsize=(NAMES + PANEL * len(MEASURES), sum(heights)), layout="constrained")
    panels = figure.subplots(len(scenes), len(MEASURES), squeeze=False, height_ratios=heights)
    for row, scene in zip(panels, scenes, strict=True):
        names = [one["name"] for one in scene["rows"]]
        for place, (axes, (field, title)) in enumerate(zip(row, MEASURES.values(), strict=True)):
            _bars(axes, scene["rows"], field, COLOURS[place])
            axes.set_xlabel(title, fontsize="small")
            axes.set_yticks(range(len(names)), names if not place else [""] * len(names), fontsize="small")
        sizes = "×".join(map(str, scene["shape"]))
        count = f"{scene['batch']} + {scene['batch'] * scene['ratio']} examples of {sizes}"
        row[0].set_title(f"{scene['model']}, {count}", fontsize="medium", loc="left")
    write(path, lambda temporary: figure.savefig(temporary, dpi=150))


def _bars(axes: Axes, rows: Sequence[Mapping[str, Any]], field: str, colour: str) -> None:
    first = rows[0]["peak_memory_bytes"]
    values = [row["peak_memory_bytes"] / first if field == "memory_ratio" else row[field] for row in rows]
    axes.barh(range(len(rows)), values, color=colour, height=0.6)
    ends = values
    if field == "time_ratio":
        ends = [row["time_high"] for row in rows]
        spread = [(value - row["time_low"], row["time_high"] - value) for value, row in zip(values, rows, strict=True)]
        errors = list(zip(*spread, strict=True))
        axes.errorbar(values, range(len(rows)), xerr=errors, fmt="none", ecolor="black", elinewidth=1)
    for place, (value, end) in enumerate(zip(values, ends, strict=True)):
        axes.annotate(f"{value:.2f}", (end, place), (4, 0), textcoords="offset points", va="center", fontsize="small")
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlim(0.0, 1.2 * max(*ends, 1.0))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(alpha=0.3, axis="x")
