"""The log of a run as curves, for its report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from metapl.training.config import PAIRED

Curve: TypeAlias = list[tuple[int, float]]
"""A number by step; NaN where it is not known."""

Log: TypeAlias = Sequence[Mapping[str, Any]]
"""The lines of `metrics.jsonl`."""


def phases(log: Log) -> list[str]:
    """The phases of a log in their order, without finetuning."""
    return [phase for phase in dict.fromkeys(line["phase"] for line in log) if phase != "finetune"]


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def curves(log: Log, phase: str, field: str) -> dict[str, Curve]:
    """The numbers of a phase by step, such as its "metrics" or "pseudo_labels"."""
    found: dict[str, Curve] = {}
    for line in log:
        if line["phase"] == phase:
            for name, value in line.get(field, {}).items():
                found.setdefault(name, []).append((line["step"], _known(value)))
    return found


def validation(log: Log) -> dict[str, Curve]:
    """Top-1 accuracy on the validation part by network and step; finetuning goes on from the averaged student.

    A baseline is judged by the moving average of its weights, as it is in the table.
    """
    found: dict[str, Curve] = {}
    for line in log:
        phase, step = line["phase"], line["step"]
        for name, row in line["validation"].items():
            if phase in PAIRED or name == ("model" if phase == "finetune" else "ema"):
                network = "finetuned" if phase == "finetune" else name if phase in PAIRED else phase
                found.setdefault(network, []).append((step, _known(row["top1"])))
    if "finetuned" in found and "ema" in found:
        last = found["ema"][-1]
        found["finetuned"] = [last, *((last[0] + step, value) for step, value in found["finetuned"])]
    return found
