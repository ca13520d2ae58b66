"""Pictures of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import torch

from metapl import checkpoint, metrics
from metapl.mpl import Network
from metapl.types import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = 200
NAMES = {"mpl": "Meta Pseudo Labels", "ema": "student (averaged)", "pseudo-labels": "pseudo labels", "uda": "UDA"}


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    mpl.use("Agg")  # no screen is needed, or touched
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

    Args:
        log: a run's `metrics.jsonl`.
        path: the PNG to write.
    """
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    phases = list(dict.fromkeys(line["phase"] for line in lines if line["phase"] != "finetune"))
    figure, ((left, right),) = _figure(1, 2, (11, 4))
    main = [line for line in lines if line["phase"] == phases[-1]]
    for name in main[0]["metrics"]:
        if name != "feedback":
            left.plot([line["step"] for line in main], [line["metrics"][name] for line in main], label=name)
    for phase in phases:
        own = [line for line in lines if line["phase"] == phase]
        for network in own[0]["validation"]:
            if phase != "mpl" and network != "ema":
                continue  # a baseline is judged by its averaged weights
            label = NAMES.get(network, network) if phase == "mpl" else NAMES.get(phase, phase)
            style = "-" if phase == "mpl" else "--"
            right.plot(
                [x["step"] for x in own], [100 * x["validation"][network]["top1"] for x in own], style, label=label
            )
    _style(left, f"losses of {NAMES.get(phases[-1], phases[-1])}", "nats")
    _style(right, "validation accuracy", "top-1, %")
    _save(figure, path)


def regions(
    networks: dict[str, tuple[Model, Network]],
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
        predicted = metrics.predict(model, *network, grid.to(device)).argmax(-1).cpu().reshape(GRID, GRID)
        right = metrics.top1(metrics.predict(model, *network, x.to(device)).cpu(), y)
        axes.contourf(across, up, predicted, levels=[-0.5, 0.5, 1.5], colors=["#cfe2f3", "#fce5cd"])
        axes.scatter(*x.T, c=y, s=2, cmap="coolwarm", alpha=0.5)
        known = x[labelled.cpu()]
        axes.scatter(*known.T, c=y[labelled.cpu()], s=70, cmap="coolwarm", edgecolors="black", marker="*")
        axes.set_title(f"{name}: {100 * right:.1f} %")
        axes.set_xticks([])
        axes.set_yticks([])
    _save(figure, path)
