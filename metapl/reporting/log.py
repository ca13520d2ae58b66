"""The log of a run as curves, for its report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from metapl import methods

Curve: TypeAlias = list[tuple[int, float]]
"""A number by step; NaN where it is not known."""

Log: TypeAlias = Sequence[Mapping[str, Any]]
"""The lines of `metrics.jsonl`."""


def phases(log: Log) -> list[str]:
    """The phases of a log in their order, without those that go on with a network, as finetuning does."""
    known = methods.phases()
    found = dict.fromkeys(line["phase"] for line in log)
    return [phase for phase in found if phase not in known or not known[phase].continues]


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
    """Top-1 accuracy on the validation part by network and step; finetuning goes on from the network it starts with.

    Each network is judged by the weights that are kept of it, as it is in the table.
    """
    known = methods.phases()
    found: dict[str, Curve] = {}
    for line in log:
        if line["phase"] not in known:
            continue
        phase = known[line["phase"]]
        for name in phase.networks:
            if row := line["validation"].get(phase.source(name)):
                found.setdefault(name, []).append((line["step"], _known(row["top1"])))
    for phase in known.values():
        if phase.continues in found:
            last = found[phase.continues][-1]
            for name in found.keys() & phase.networks.keys():
                found[name] = [last, *((last[0] + step, value) for step, value in found[name])]
    return found
