"""Pictures of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import torch

from metapl import methods
from metapl.core.types import Model, Variables
from metapl.data.loader import in_order
from metapl.evaluation import metrics, quality
from metapl.reporting import log as run_log
from metapl.reporting.drawing import COLOURS
from metapl.training import checkpoint, run_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = 200
"""Points of a side of the grid that decision regions are drawn on."""


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    matplotlib.use("Agg")  # no screen is needed, or touched
    import matplotlib.pyplot as plt  # noqa: PLC0415 - after the choice of the backend

    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)


def _save(figure: Figure, path: Path) -> None:
    import matplotlib.pyplot as plt  # noqa: PLC0415

    checkpoint.write(path, lambda temporary: figure.savefig(temporary, dpi=150))
    plt.close(figure)


def _style(axes: Axes, title: str, y_label: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")


def curves(log: Path, path: Path) -> None:
    """Losses of the last training phase, and accuracy on the validation part over the steps of every method.

    Nothing is drawn where nothing was trained in steps, or where the log is lost.

    Args:
        log: a run's `metrics.jsonl`.
        path: the PNG to write.
    """
    lines = run_files.log(log)
    known, phases = methods.networks(), run_log.phases(lines)
    if not phases:
        return
    figure, ((left, right),) = _figure(1, 2, (11, 4))
    main = [line for line in lines if line["phase"] == phases[-1]]
    for name in main[0]["metrics"]:
        if name != "feedback":
            left.plot([line["step"] for line in main], [line["metrics"][name] for line in main], label=name)
    for network, curve in run_log.validation([line for line in lines if line["phase"] in phases]).items():
        spec, steps = known[network], [step for step, _ in curve]
        style = "--" if spec.dash else "-"
        right.plot(steps, [100 * value for _, value in curve], style, label=spec.title)
    _style(left, f"losses of {_title(phases[-1])}", "nats")
    _style(right, "validation accuracy", "top-1, %")
    _save(figure, path)


def _title(phase: str) -> str:
    return methods.find(phase).title if phase in methods.METHODS else phase


def regions(
    networks: dict[str, tuple[Model, Variables]],
    points: tuple[torch.Tensor, torch.Tensor],
    labelled: torch.Tensor,
    path: Path,
) -> None:
    """Decision regions of classifiers of the plane, side by side.

    Args:
        networks: by the name to print above the picture.
        points: positions `[points, 2]` and class indices `[points]`.
        labelled: indices of the points whose label was known.
        path: the PNG to write.
    """
    x, y = (part.cpu() for part in points)
    low, high = x.amin(0) - 0.3, x.amax(0) + 0.3
    across, up = (torch.linspace(float(low[i]), float(high[i]), GRID) for i in (0, 1))
    grid = torch.cartesian_prod(up, across).flip(-1)
    figure, (row,) = _figure(1, len(networks), (3.6 * len(networks), 3.4))
    for axes, (name, (model, network)) in zip(row, networks.items(), strict=True):
        device = next(iter(network.params.values())).device
        predicted = metrics.predict(model, *network, in_order(grid, device)).argmax(-1).cpu().reshape(GRID, GRID)
        right = metrics.top1(metrics.predict(model, *network, in_order(x, device)).cpu(), y)
        axes.contourf(across, up, predicted, levels=[-0.5, 0.5, 1.5], colors=["#cfe2f3", "#fce5cd"])
        axes.scatter(*x.T, c=y, s=2, cmap="coolwarm", alpha=0.5)
        known = x[labelled.cpu()]
        axes.scatter(*known.T, c=y[labelled.cpu()], s=70, cmap="coolwarm", edgecolors="black", marker="*")
        axes.set_title(f"{name}: {100 * right:.1f} %")
        axes.set_xticks([])
        axes.set_yticks([])
    _save(figure, path)


def accuracy_against_cost(rows: Sequence[Mapping[str, Any]], cosine: float, title: str, path: Path) -> None:
    """The cosine to the exact gradient against what it costs, by estimator.

    A point for an estimator without randomness; for the others the mean of n draws, as a line by the formula and as
    dots where it was measured.

    Args:
        rows: as `metapl compare --json` writes them.
        cosine: the accuracy that was asked for, drawn as a line.
        title: what stands above.
        path: the PNG to write.
    """
    figure, ((axes,),) = _figure(1, 1, (11, 6))
    shown = [row for row in rows if row["cosine_one"] is not None and row["flops_ratio"] is not None]
    noisy = sorted((row for row in shown if row["curve"]), key=lambda row: row["name"])
    still = sorted((row for row in shown if not row["curve"]), key=lambda row: row["flops_ratio"])
    costs = [row["flops_to_reach"] or row["flops_ratio"] * row["draws"] for row in shown]
    far = 3 * max([100.0, *costs])
    low = min([0.0, *(row["cosine_one"] - 0.05 for row in still), *(min(row["curve"]["measured"]) for row in noisy)])
    _frame(axes, (0.06, far), (low, 1.06), cosine)
    axes.set_title(title)
    families = list(dict.fromkeys(_family(row) for row in noisy))
    colours = [COLOURS[families.index(_family(row)) % len(COLOURS)] for row in noisy]
    ends = [_line(axes, row, far, colour) for row, colour in zip(noisy, colours, strict=True)]
    for row, end, height, colour in zip(noisy, ends, _apart(ends, low, 1.03), colours, strict=True):
        _label(axes, row["name"], (far, end), (1.03, height), colour)
    for row, height in zip(still, _apart([row["cosine_one"] for row in still], low, 1.03, ordered=True), strict=True):
        point = (row["flops_ratio"], row["cosine_one"])
        axes.plot(*point, "*" if row["name"] == "exact" else "o", color="black", markersize=7, zorder=5)
        _label(axes, row["name"], point, (0.155, height), "black")
    _save(figure, path)


def _family(row: Mapping[str, Any]) -> str:
    """The name without its options: one colour for all of them."""
    return row["name"].partition(":")[0]


def _frame(axes: Axes, across: tuple[float, float], up: tuple[float, float], cosine: float) -> None:
    """Axes with free room on the left, where names stand."""
    axes.set(xscale="log", xlim=across, ylim=up, ylabel="cosine to the exact gradient")
    axes.set_xlabel(
        "cost in steps of the student (FLOPs of the step and the exam)\n"
        "black: an estimator without randomness; colour: the mean of ever more draws, by formula and as measured"
    )
    axes.set_xticks([10.0**power for power in range(math.floor(math.log10(across[1])) + 1)])
    axes.minorticks_off()
    tenths = [number / 5 for number in range(math.ceil(5 * up[0]), 6)]
    axes.set_yticks(sorted([*(value for value in tenths if abs(value - cosine) > 0.04), cosine]))
    axes.grid(alpha=0.25)
    axes.axhline(cosine, color="0.4", linewidth=1, linestyle=":")


def _line(axes: Axes, row: Mapping[str, Any], far: float, colour: str) -> float:
    """The curve and the dots of an estimator with randomness; the height where it leaves the picture."""
    price, curve = row["flops_ratio"], row["curve"]
    axes.plot([price * count for count in curve["draws"]], curve["measured"], ".", color=colour, markersize=8)
    if row["cosine"] is None or not row["norm_ratio"]:  # its mean was lost in the noise, so there is no formula
        return curve["measured"][-1]
    noise = row["variance"] / row["norm_ratio"] ** 2
    costs = [price * (far / price) ** (step / 200) for step in range(201)]
    heights = [quality.predicted(row["cosine"], noise, cost / price) for cost in costs]
    axes.plot(costs, heights, "--" if ":" in row["name"] else "-", color=colour, linewidth=1.8)
    return heights[-1]


def _apart(wanted: Sequence[float], low: float, high: float, ordered: bool = False) -> list[float]:
    """Heights near the wanted ones, so far apart that labels do not touch; `ordered` keeps the first on top."""
    gap = 0.045 * (1.06 - low)
    order = list(range(len(wanted))) if ordered else sorted(range(len(wanted)), key=lambda index: -wanted[index])
    heights = [0.0] * len(wanted)
    for index in order:
        heights[index] = high = min(wanted[index], high)
        high -= gap
    floor = low + 0.01
    for index in reversed(order):
        heights[index] = floor = max(heights[index], floor)
        floor += gap
    return heights


def _label(axes: Axes, text: str, point: tuple[float, float], at: tuple[float, float], colour: str) -> None:
    """A name beside the picture or in its free part, with a thin line to what it names; `at` is (share, height)."""
    left = at[0] < 0.5
    axes.annotate(
        text,
        point,
        at,
        textcoords=axes.get_yaxis_transform(),
        color=colour,
        va="center",
        ha="right" if left else "left",
        annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "relpos": (float(left), 0.5)},
    )
